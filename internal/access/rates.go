package access

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates limits what happens for each of many keys. It remembers a bounded number of them; beyond that all others share one limit.
type Rates[K comparable] struct {
	limit rate.Limit
	burst int

	mu    sync.Mutex
	byKey map[K]*rate.Limiter
	swept time.Time // when idle keys were last forgotten
}

const (
	ratesMax   = 4096 // keys
	sweepEvery = time.Second
)

// NewRates returns limits of so many events a second for each key, after a burst.
func NewRates[K comparable](limit rate.Limit, burst int) *Rates[K] {
	return &Rates[K]{limit: limit, burst: burst, byKey: map[K]*rate.Limiter{}}
}

// Allow counts an event of a key at now, and reports whether it is within the limit.
func (r *Rates[K]) Allow(key K, now time.Time) bool { return r.AllowN(key, now, 1) }

// AllowN is Allow of so many events, all of them or none.
func (r *Rates[K]) AllowN(key K, now time.Time, events int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.byKey[key]
	if l == nil {
		if len(r.byKey) >= ratesMax && now.Sub(r.swept) >= sweepEvery {
			r.swept = now
			for other, limiter := range r.byKey {
				if limiter.TokensAt(now) >= float64(r.burst) {
					delete(r.byKey, other)
				}
			}
		}
		if len(r.byKey) >= ratesMax {
			key = *new(K) // that of all others
		}
		if l = r.byKey[key]; l == nil {
			l = rate.NewLimiter(r.limit, r.burst)
			r.byKey[key] = l
		}
	}
	return l.AllowN(now, events)
}

// Wrong tokens from one network are answered and recorded at this rate. Right ones are not counted: what an attacker sends must not keep out
// others behind the same address. A secret cannot be guessed at any rate; the limit bounds logs and audit records.
const (
	wrongRate  = rate.Limit(2)
	wrongBurst = 20
)

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
