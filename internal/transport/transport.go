// Package transport is the one place that opens listeners and connections and writes URLs of Bridge Four's own servers, so that
// encryption is added here and nowhere else. All traffic is plain TCP now: HTTP/1 for clients, gRPC for workers and leaders.
package transport

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Scheme is that of every server's URL.
const Scheme = "http"

// URL is the base URL of the server at address, host:port.
func URL(address string) string { return Scheme + "://" + address }

// Listen opens a server's port.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", address)
}

// Dial connects to the server at address. A machine that does not answer is given up after 2 s, and one that has vanished is noticed
// within about 5 s.
func Dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 2 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3,
	}}
	return d.DialContext(ctx, "tcp", address)
}

// NewHTTP returns what carries HTTP requests to servers. Its limits may be changed before it is used.
func NewHTTP() *http.Transport {
	return &http.Transport{
		DialContext:           func(ctx context.Context, _, address string) (net.Conn, error) { return Dial(ctx, address) },
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       time.Minute,
	}
}
