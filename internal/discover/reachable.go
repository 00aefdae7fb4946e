package discover

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"
)

// lookupTime bounds the look-up of this machine's name.
const lookupTime = time.Second

// Reachable is the address of a listener for other machines. If it listens on all addresses, the host is this machine's name, or its address
// where the name leads nowhere or, as on many machines, to loopback: others could not use the name.
func Reachable(ctx context.Context, addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	port := strconv.Itoa(tcp.Port)
	name, err := os.Hostname()
	if err == nil && leadsHere(ctx, name) {
		return net.JoinHostPort(name, port)
	}
	if ip := ownAddress(); ip.IsValid() {
		return net.JoinHostPort(ip.String(), port)
	}
	if err == nil {
		return net.JoinHostPort(name, port)
	}
	return addr.String()
}

// leadsHere reports whether the name has addresses, none of which is loopback.
func leadsHere(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	return err == nil && !slices.ContainsFunc(ips, netip.Addr.IsLoopback)
}

// ownAddress is the first address of this machine, in the order of its interfaces, that is not only for itself or its link; invalid if there is
// none.
func ownAddress() netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}
