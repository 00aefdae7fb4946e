package access

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

func TestHosts(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	h := newHosts("0.0.0.0:6550", "Kaladin-01:6551", "[2001:db8::7]:6550", "b4.example.com", "")
	for _, host := range []string{
		"", "localhost", "localhost:6550", "LOCALHOST:80", "localhost.:80", "127.0.0.1", "127.0.0.1:6550", "127.1.2.3:8080",
		"[::1]", "[::1]:6550", "[::ffff:127.0.0.1]:1", // loopback, at any port
		"0.0.0.0:6550", "kaladin-01", "KALADIN-01.:99", "[2001:db8::7]:1", "[2001:DB8:0::7]", "b4.example.com:443", // as given
		name, name + ":6550", // of the machine
		"10.1.2.3:6550", "10.1.2.3", "[::ffff:10.1.2.3]:1", // where the connection arrived
	} {
		if err := h.check(request(t, host)); err != nil {
			t.Errorf("check(%q) = %v, want nil", host, err)
		}
	}
	for _, host := range []string{
		"evil.example", "evil.example:6550", "10.1.2.4:6550", "[2001:db8::8]", "localhost.evil.example", "127.0.0.1.evil.example", "x.b4.example.com",
		"kaladin-01.evil.example", "localhost:1:2", "[::1", "[evil.example]", "@localhost", "localhost@evil.example", " localhost", "0", ".", ":6550",
	} {
		p, ok := errors.AsType[*api.Problem](h.check(request(t, host)))
		if !ok || p.Status != http.StatusMisdirectedRequest {
			t.Errorf("check(%q) = %v, want 421", host, p)
			continue
		}
		for _, says := range []string{"localhost", "kaladin-01", "--allowed-host"} {
			if !strings.Contains(p.Detail, says) {
				t.Errorf("check(%q) = %q, want it to name %s", host, p.Detail, says)
			}
		}
		if strings.Contains(p.Detail, "0.0.0.0") {
			t.Errorf("check(%q) = %q, want no wildcard address", host, p.Detail)
		}
	}
	local := request(t, "evil.example")
	local = local.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, &net.UnixAddr{Net: "unix"}))
	if err := h.check(local); err != nil {
		t.Errorf("check over a unix socket = %v, want nil", err)
	}
	if err := (hosts{}).check(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.1.2.3/", nil)); err == nil {
		t.Error("an address was accepted although the connection's is not known")
	}
}

func TestCheckHost(t *testing.T) {
	for name, valid := range map[string]bool{
		"b4.example.com": true, "leader": true, "10.0.0.7": true, "::1": true, "[2001:db8::7]": true, "my_service.": true,
		"": false, "*": false, "*.example.com": false, "http://leader": false, "a/b": false, "a b": false, "leader:6550": false, "x:y:z": false, "é": false,
	} {
		if err := CheckHost(name); (err == nil) != valid {
			t.Errorf("CheckHost(%q) = %v, want valid: %v", name, err, valid)
		}
	}
}

// request has arrived at 10.1.2.3.
func request(t *testing.T, host string) *http.Request {
	t.Helper()
	ctx := context.WithValue(t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 6550})
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.Host = host
	return r
}
