package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

const (
	// BrowserPath is where a client requests a login for a browser. The login is below it.
	BrowserPath = "/v1/access/browser"

	loginTime   = time.Minute
	sessionTime = 12 * time.Hour
	// browsersMax bounds the logins and the sessions of a server.
	browsersMax = 1024

	cookieName = "bridgefour"
)

// browsers are the browsers that clients have let in. They end with the process of the server. Secrets are kept as hashes, so a lookup takes
// no longer for one that is nearly right.
type browsers struct {
	mu       sync.Mutex
	logins   map[[sha256.Size]byte]browser // not used yet
	sessions map[[sha256.Size]byte]browser
}

// browser has the identity of the client that requested its login.
type browser struct {
	local         bool                // as the local principal
	authorization string              // else
	outside       []*x509.Certificate // without one: the client's certificate
	// user is of the browser's process, as the kernel knows it; empty: unknown. A cookie is sent to all ports of a host, so other users'
	// servers may see it.
	user    string
	expires time.Time
}

// add adds b to the table, and returns its secret.
func add(to *map[[sha256.Size]byte]browser, b browser, now time.Time) (secret string) {
	if *to == nil {
		*to = map[[sha256.Size]byte]browser{}
	}
	var oldest [sha256.Size]byte
	first := b.expires
	for key, other := range *to {
		if !now.Before(other.expires) {
			delete(*to, key)
		} else if other.expires.Before(first) {
			oldest, first = key, other.expires
		}
	}
	if len(*to) >= browsersMax {
		delete(*to, oldest)
	}
	secret = rand.Text()
	(*to)[sha256.Sum256([]byte(secret))] = b
	return secret
}

// Login returns the secret of a one-time URL, by which a browser gets the identity of the request.
func (p *Policy) Login(r *http.Request) (secret string) {
	peer, now := PeerFrom(r.Context()), time.Now()
	authorization := r.Header.Get("Authorization")
	p.browsers.mu.Lock()
	defer p.browsers.mu.Unlock()
	return add(&p.browsers.logins, browser{
		local: authorization == "" && peer.Outside == nil && peer.Local, authorization: authorization, outside: peer.Outside, user: peer.User, expires: now.Add(loginTime),
	}, now)
}

// Enter exchanges the secret of a login for the cookie of a session.
func (p *Policy) Enter(r *http.Request, secret string) (*http.Cookie, error) {
	peer, now := PeerFrom(r.Context()), time.Now()
	key := sha256.Sum256([]byte(secret))
	p.browsers.mu.Lock()
	defer p.browsers.mu.Unlock()
	b, ok := p.browsers.logins[key]
	delete(p.browsers.logins, key)
	if !ok || !now.Before(b.expires) || b.user != "" && peer.User != "" && b.user != peer.User {
		return nil, api.NewProblem(http.StatusGone, "this address works once and for a minute, in a browser of the same user: 'bridgefour ui' prints another one")
	}
	b.user, b.expires = peer.User, now.Add(sessionTime)
	return &http.Cookie{
		Name: cookieName, Value: add(&p.browsers.sessions, b, now), Path: "/", MaxAge: int(sessionTime.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: peer.Encrypted,
	}, nil
}

// browserOf returns the session of a request; ok: it has one.
func (p *Policy) browserOf(r *http.Request, peer Peer) (b browser, ok bool) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return browser{}, false
	}
	p.browsers.mu.Lock()
	defer p.browsers.mu.Unlock()
	b, ok = p.browsers.sessions[sha256.Sum256([]byte(cookie.Value))]
	return b, ok && time.Now().Before(b.expires) && b.user == peer.User
}

// checkOrigin returns a 403 problem for requests of browsers that a page of another site makes. A user may follow a link from one. Requests
// that change something must say that they are from a page of this server, if a cookie identifies them.
func (p *Policy) checkOrigin(r *http.Request, cookie bool) error {
	h := r.Header
	site := h.Get("Sec-Fetch-Site")
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
	err := p.origins.Check(r)
	switch {
	case err != nil:
	case safe && (site == "cross-site" || site == "same-site") && (h.Get("Sec-Fetch-Mode") != "navigate" || h.Get("Sec-Fetch-Dest") != "document"):
	case cookie && !safe && site != "same-origin" && h.Get("Origin") == "":
	default:
		return nil
	}
	return api.NewProblem(http.StatusForbidden, "cross-site request of a browser refused: only pages of this server may send it")
}
