package access

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

// hosts are the names that an HTTP server accepts in a request's Host header. Without this check a web page could rebind its own
// DNS name to the server's address, and then send requests to it as if they came from the same site.
//
// Accepted are loopback names and addresses, the address at which the connection arrived, and the names given to newHosts; the
// port does not matter, so that forwarded ports work. A request without a Host (HTTP/1.0) is accepted: no browser sends one.
// The gRPC services on the same port need no such check: browsers cannot speak HTTP/2 without TLS.
type hosts struct {
	names []string
}

// newHosts accepts the hosts of addresses, each HOST or HOST:PORT, and the name of this machine, with and without its domain.
func newHosts(addresses ...string) hosts {
	if name, err := os.Hostname(); err == nil { // a machine without a name is reached by its addresses
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

// check returns a 421 problem if the request is for a host that is not accepted.
func (h hosts) check(r *http.Request) error {
	name := hostName(r.Host)
	if r.Host == "" || name == localhost || slices.Contains(h.names, name) {
		return nil
	}
	if ip, err := netip.ParseAddr(name); err == nil && (ip.IsLoopback() || ip == localAddress(r)) {
		return nil
	}
	return api.NewProblem(http.StatusMisdirectedRequest, "host %.100q is not accepted, because web pages could use it to reach this server: "+
		"use %s or the address that it listens on, or allow the name with --accept-host", name, strings.Join(append([]string{localhost}, h.names...), ", "))
}

// localAddress is this server's end of the connection; the zero address if it is unknown.
func localAddress(r *http.Request) netip.Addr {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if local == nil {
		return netip.Addr{}
	}
	return local.AddrPort().Addr().Unmap().WithZone("")
}

// hostName is the host of HOST or HOST:PORT in the form in which hosts are compared.
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
