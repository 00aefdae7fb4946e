package access

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Wrong tokens from one address are answered and recorded at this rate.
const (
	wrongRate    = rate.Limit(2)
	wrongBurst   = 20
	addressesMax = 4096
	sweepEvery   = time.Second
)

// attempts limits the wrong tokens of each address. Right ones are not counted: what an attacker sends must not keep out others behind the
// same address. A secret cannot be guessed at any rate; the limit bounds logs and audit records.
type attempts struct {
	mu        sync.Mutex
	byAddress map[netip.Prefix]*rate.Limiter
	swept     time.Time // when idle addresses were last forgotten
}

// allow counts a wrong token from host:port at now, and reports whether it is within the limit.
func (a *attempts) allow(address string, now time.Time) bool {
	network := networkOf(address)
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.byAddress[network]
	if l == nil {
		if len(a.byAddress) >= addressesMax && now.Sub(a.swept) >= sweepEvery {
			a.swept = now
			for other, limiter := range a.byAddress {
				if limiter.TokensAt(now) >= wrongBurst {
					delete(a.byAddress, other)
				}
			}
		}
		if len(a.byAddress) >= addressesMax {
			network = netip.Prefix{} // all others share one limit
		}
		if l = a.byAddress[network]; l == nil {
			l = rate.NewLimiter(wrongRate, wrongBurst)
			if a.byAddress == nil {
				a.byAddress = map[netip.Prefix]*rate.Limiter{}
			}
			a.byAddress[network] = l
		}
	}
	return l.AllowN(now, 1)
}

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
