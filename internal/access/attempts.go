package access

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Wrong tokens from one address are answered and recorded at this rate.
const (
	wrongRate  = rate.Limit(2)
	wrongBurst = 20
)

// attempts limits the wrong tokens of each address. Right ones are not counted: what an attacker sends must not keep out others behind the
// same address. A secret cannot be guessed at any rate; the limit bounds logs and audit records.
type attempts struct{ *Rates[netip.Prefix] }

func newAttempts() attempts { return attempts{NewRates[netip.Prefix](wrongRate, wrongBurst)} }

// allow counts a wrong token from host:port at now, and reports whether it is within the limit.
func (a attempts) allow(address string, now time.Time) bool { return a.Allow(networkOf(address), now) }

// networkOf returns what one client has of the address space: an IPv4 address, or 64 bits of an IPv6 one.
func networkOf(address string) netip.Prefix {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{} // a unix socket
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	network, _ := ip.Prefix(bits) // bits fit the address
	return network
}
