package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"net/http"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// A token is ID_SECRET: the id is public, the secret has 130 random bits.
const (
	tokenIDLen  = 10
	secretLen   = 26 // of rand.Text
	tokenLen    = tokenIDLen + 1 + secretLen
	tokenSplit  = "_"
	tokenScheme = "Bearer "
)

// NewToken returns a token without an expiry, and its text, of which only the hash is stored.
func NewToken(role, user string) (t *state.Token, text string) {
	id, secret := strings.ToLower(rand.Text()[:tokenIDLen]), rand.Text()
	return &state.Token{ID: id, Hash: sha256.Sum256([]byte(secret)), Role: role, User: user}, id + tokenSplit + secret
}

// FirstToken returns the token by which workers join a new cluster from its start, and its text. It follows from the key that the leaders are given and from
// the ID of the cluster, as the first authority does, so the string can be made before there is a leader.
func FirstToken(clusterKey Key, cluster string) (t *state.Token, text string) {
	const bytes = (tokenIDLen + secretLen + 1) * 5 / 8
	raw := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(derive(clusterKey, []byte(cluster), "bridgefour first token", bytes))
	id, secret := strings.ToLower(raw[:tokenIDLen]), raw[tokenIDLen:tokenIDLen+secretLen]
	return &state.Token{ID: id, Hash: sha256.Sum256([]byte(secret)), Role: RoleWorker}, id + tokenSplit + secret
}

// bearer returns the token of an Authorization header; ok is false if there is none.
func bearer(header string) (token string, ok bool) {
	if len(header) < len(tokenScheme) || !strings.EqualFold(header[:len(tokenScheme)], tokenScheme) {
		return "", false
	}
	return strings.TrimSpace(header[len(tokenScheme):]), true
}

// wayIn is what a user without access does.
const wayIn = "an admin makes one with 'bridgefour token create --role submit --user NAME', and 'bridgefour login STRING' stores it; for a machine, with --role worker or leader, and --join STRING"

// splitToken returns the parts of a token.
func splitToken(text string) (id, secret string, err error) {
	id, secret, _ = strings.Cut(text, tokenSplit)
	if len(text) != tokenLen || len(id) != tokenIDLen {
		err = api.NewProblem(http.StatusUnauthorized, "the token is not complete: it has %d characters, and a whole one has %d; copy the whole string",
			len(text), tokenLen)
	}
	return id, secret, err
}

// FindToken returns the token with this text. Its errors do not tell whether the id exists.
func FindToken(tables *state.Access, text string, now time.Time) (*state.Token, error) {
	id, secret, err := splitToken(text)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(secret))
	t := tables.Token(id)
	if t == nil || subtle.ConstantTimeCompare(hash[:], t.Hash[:]) != 1 {
		return nil, api.NewProblem(http.StatusUnauthorized,
			"the token is not valid: it was revoked, is of another cluster, or was changed when it was copied; %s", wayIn)
	}
	return t, checkExpiry(t, now)
}

func errWrongTokens() error {
	return api.NewProblem(http.StatusTooManyRequests, "too many wrong tokens from this address: try again in a moment, with another token")
}

// checkExpiry returns a problem if the token has expired by the clock of this leader, which may be wrong.
func checkExpiry(t *state.Token, now time.Time) error {
	if t.Expires == 0 || now.UnixMilli() < t.Expires {
		return nil
	}
	return api.NewProblem(http.StatusUnauthorized, "token %s expired at %s, and the clock of this leader says %s: %s",
		t.ID, time.UnixMilli(t.Expires).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), wayIn)
}
