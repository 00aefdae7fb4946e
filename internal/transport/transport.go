// Package transport opens listeners and connections, limits their number, and formats and parses the addresses of servers. No other
// package does. Traffic is HTTP/1 of clients, and gRPC of workers and leaders, over TCP, in plain or in TLS 1.3, over unix sockets, or within the
// process. An address is host:port or unix:PATH.
package transport

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Schemes of servers' URLs.
const (
	Scheme    = "http"
	SchemeTLS = "https"
)

// URL is the base URL of the server at address. [NewHTTP] knows those of unix sockets.
func URL(address string) string {
	if path, ok := UnixPath(address); ok {
		address = unixHost(path)
	}
	return Scheme + "://" + address
}

// Listen listens on address, host:port.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", address)
}

// Dial connects to the server at address. It fails after 2 s without an answer; a dead connection is detected within about 5 s.
func Dial(ctx context.Context, address string) (net.Conn, error) {
	if path, ok := UnixPath(address); ok {
		return dialUnix(ctx, path)
	}
	d := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3,
	}}
	return d.DialContext(ctx, "tcp", address)
}

// NewHTTP returns a transport for requests to servers. Its limits may be changed before use.
func NewHTTP() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			if path, ok := unixOfHost(address); ok {
				address = UnixAddress(path)
			}
			return Dial(ctx, address)
		},
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       time.Minute,
	}
}
