package transport

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUnix sends a request over a socket, also one whose path is too long for the address of a socket.
func TestUnix(t *testing.T) {
	for _, folder := range []string{"short", strings.Repeat("long", 30)} {
		t.Run(folder[:4], func(t *testing.T) {
			path := filepath.Join(t.TempDir(), folder, "s")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil { // what a killed process left there is replaced
				t.Fatal(err)
			}
			l, err := ListenUnix(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
				t.Errorf("mode of the socket: %v, %v", info.Mode(), err)
			}
			server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(l) }()
			url := URL(UnixAddress(path))
			if got := Display(url); got != "unix:"+path {
				t.Errorf("Display(%q) = %q", url, got)
			}
			c := &http.Client{Transport: NewHTTP()}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/jobs", nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			if err := errors.Join(err, answer.Body.Close()); string(body) != "/v1/jobs" || err != nil {
				t.Errorf("answer %q, %v", body, err)
			}
			c.CloseIdleConnections()
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket is left behind: %v", err)
			}
			if _, err := Dial(t.Context(), UnixAddress(path)); err == nil {
				t.Error("Dial of a socket that is not there succeeds")
			}
		})
	}
}

func TestUnixHosts(t *testing.T) {
	for host, want := range map[string]bool{
		unixHost("/run/s"): true, unixHost("/run/s") + ":80": true, unixHost("run/s"): false, "b4.unix": false, "abcd.unix": false,
		unixHost("/run/s") + ".example": false, "localhost:6550": false, "": false,
	} {
		if got := IsUnix(host); got != want {
			t.Errorf("IsUnix(%q) = %v, want %v", host, got, want)
		}
	}
	if got := Display("http://localhost:1"); got != "http://localhost:1" {
		t.Errorf("Display changes a URL to %q", got)
	}
}

func TestDialAddresses(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"unix:/run/s": "unix:/run/s", " unix:s": "unix:" + here + "/s", "unix:": "", "host": "host:6550", "a:b:c": ""} {
		got, err := ParseDial(text)
		if got != want || (err == nil) != (want != "") || want != "" && CheckDial(got) != nil {
			t.Errorf("ParseDial(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{"unix:s", "unix:", "host"} {
		if CheckDial(bad) == nil {
			t.Errorf("CheckDial(%q) = nil", bad)
		}
	}
}

func TestMemory(t *testing.T) {
	m := ListenMemory()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := m.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	client, err := m.Dial(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	server := <-accepted
	if _, err := client.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "text" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := errors.Join(client.Close(), server.Close()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := m.Dial(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial that is not accepted = %v, %v", c, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if c, err := m.Dial(t.Context(), ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial after Close = %v, %v", c, err)
	}
	if c, err := m.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close = %v, %v", c, err)
	}
}
