package access

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

// hosts are the names that a server accepts in the Host header. Without this check a web page could rebind its own DNS name to the
// server's address and send same-site requests to it.
//
// Loopback names and addresses, the local address of the connection, and the names given to newHosts are accepted, with any port,
// so that forwarded ports work. A request without a Host (HTTP/1.0) is accepted: browsers always send one. Over a unix socket every host is:
// browsers cannot open one. The gRPC services on the same port need no such check: browsers do not speak HTTP/2 without TLS.
type hosts struct {
	names []string
}

// newHosts accepts the hosts of addresses, each HOST or HOST:PORT, and the name of this machine with and without its domain.
func newHosts(addresses ...string) hosts {
	if name, err := os.Hostname(); err == nil { // without a name only addresses are accepted
		short, _, _ := strings.Cut(name, ".")
		addresses = append(slices.Clip(addresses), name, short)
	}
	var h hosts
	for _, a := range addresses {
		if name := hostName(a); name != "" && name != localhost && !slices.Contains(h.names, name) {
			h.names = append(h.names, name)
		}
	}
	return h
}

const localhost = "localhost"

// hostNamePattern matches the names that a client can send in the Host header.
var hostNamePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// CheckHost returns an error unless name is a host name or an IP address.
func CheckHost(name string) error {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err != nil && !hostNamePattern.MatchString(name) {
		return fmt.Errorf("invalid host name %.100q: want a name or an address, without scheme or port", name)
	}
	return nil
}

// check returns a 421 problem if the host of the request is not accepted.
func (h hosts) check(r *http.Request) error {
	name := hostName(r.Host)
	if _, isUnix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); isUnix {
		return nil
	}
	if r.Host == "" || name == localhost || slices.Contains(h.names, name) {
		return nil
	}
	if ip, err := netip.ParseAddr(name); err == nil && (ip.IsLoopback() || ip == localAddress(r)) {
		return nil
	}
	use := []string{localhost}
	for _, n := range h.names {
		if _, err := netip.ParseAddr(n); err != nil {
			use = append(use, n)
		}
	}
	return api.NewProblem(http.StatusMisdirectedRequest, "host %.100q is not accepted, since a web page could use it to reach this server: "+
		"use %s or the server's IP address, or, if the name is the server's, restart the leader or worker itself with --allowed-host NAME", name, strings.Join(use, ", "))
}

// localAddress is the local address of the connection; zero if unknown.
func localAddress(r *http.Request) netip.Addr {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if local == nil {
		return netip.Addr{}
	}
	return local.AddrPort().Addr().Unmap().WithZone("")
}

// hostName is the normalized host of HOST or HOST:PORT.
func hostName(address string) string {
	name := address
	if ip, _, closed := strings.Cut(name, "]"); closed && strings.HasPrefix(ip, "[") {
		name = ip[1:]
	} else if host, _, hasPort := strings.Cut(name, ":"); hasPort && strings.Count(name, ":") == 1 {
		name = host
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().WithZone("").String()
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
