package access

import (
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Lookup asks a leader for the token of a request, which is from the peer at address: a server that is no leader has no tables. It returns a
// 401 problem if the token is not valid.
type Lookup func(ctx context.Context, token, address, action string) (*state.Token, error)

const (
	// foundAge is how long the answer of a leader is used, and so how long a revoked token may be accepted.
	foundAge = 2 * time.Second
	foundMax = 1024
	// lookupTime bounds the time until a leader answers.
	lookupTime = 5 * time.Second
)

// foundTokens are valid tokens that a leader has described, by the hash of their text.
type foundTokens struct {
	mu     sync.Mutex
	byHash map[[sha256.Size]byte]foundToken
}

type foundToken struct {
	token *state.Token
	at    time.Time
}

func (f *foundTokens) get(key [sha256.Size]byte) (t foundToken, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok = f.byHash[key]
	return t, ok
}

// put replaces what is known of a token; nil: it is not valid. The oldest makes room for a new one.
func (f *foundTokens) put(key [sha256.Size]byte, t *state.Token, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if delete(f.byHash, key); t == nil {
		return
	}
	if len(f.byHash) >= foundMax {
		var oldest [sha256.Size]byte
		first := now
		for other, found := range f.byHash {
			if !found.at.After(first) {
				oldest, first = other, found.at
			}
		}
		delete(f.byHash, oldest)
	}
	if f.byHash == nil {
		f.byHash = map[[sha256.Size]byte]foundToken{}
	}
	f.byHash[key] = foundToken{t, now}
}

// lookUp returns the token with this text, as a leader describes it. A flood of wrong tokens does not reach the leader, and does not keep out
// tokens that were valid before.
func (p *Policy) lookUp(ctx context.Context, peer Peer, text, action string, now time.Time) (*state.Token, error) {
	if _, _, err := splitToken(text); err != nil {
		return nil, err
	}
	key := sha256.Sum256([]byte(text))
	found, ok := p.found.get(key)
	switch {
	case ok && now.Sub(found.at) < foundAge:
		return found.token, nil // the leader has compared the expiry with its own clock
	case !ok && !p.wrong.Allow(networkOf(peer.Address), now):
		return nil, errWrongTokens()
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	t, err := p.lookup(ctx, text, peer.Address, action)
	if err == nil || api.IsStatus(err, http.StatusUnauthorized) {
		p.found.put(key, t, now)
	}
	return t, err
}
