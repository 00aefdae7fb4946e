package access

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// from is a request that arrives on a connection of peer.
func from(t *testing.T, peer Peer, method string, headers ...string) *http.Request {
	t.Helper()
	r := request(t, "localhost")
	r = r.WithContext(context.WithValue(r.Context(), peerKey{}, peer))
	r.Method = method
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func TestBrowserLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPolicy(Options{})
		client := Peer{User: "1000", Local: true}              // over the unix socket
		browser := Peer{Address: "127.0.0.1:9", User: "1000"}  // not local: the session is what lets it in
		stranger := Peer{Address: "127.0.0.1:8", User: "1001"} // which has seen the URL, or the cookie
		plain := Peer{Address: "10.0.0.9:9"}                   // without encryption
		unknown := Peer{Address: "127.0.0.1:7"}                // as on other systems
		secret := p.Login(from(t, client, http.MethodPost))
		if _, err := p.Enter(from(t, stranger, http.MethodGet), secret); !api.IsStatus(err, http.StatusGone) {
			t.Errorf("Enter by another user = %v, want 410", err)
		}
		if _, err := p.Enter(from(t, browser, http.MethodGet), secret); !api.IsStatus(err, http.StatusGone) {
			t.Errorf("second Enter = %v, want 410", err)
		}
		secret = p.Login(from(t, client, http.MethodPost))
		time.Sleep(loginTime)
		if _, err := p.Enter(from(t, browser, http.MethodGet), secret); !api.IsStatus(err, http.StatusGone) {
			t.Errorf("late Enter = %v, want 410", err)
		}
		cookie, err := p.Enter(from(t, browser, http.MethodGet), p.Login(from(t, client, http.MethodPost)))
		if err != nil {
			t.Fatal(err)
		}
		if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Secure || cookie.Path != "/" {
			t.Errorf("cookie %v", cookie)
		}
		at := func(peer Peer, value string) error {
			r, err := p.Accept(from(t, peer, http.MethodGet, "Cookie", cookieName+"="+value), "GET /v1/jobs")
			if got := From(r.Context()); err == nil && (got.Name != p.local.Name || got.Permissions != all || got.Address != peer.Address) {
				t.Errorf("the principal is %+v, want the local one", got)
			}
			return err
		}
		if err := at(browser, cookie.Value); err != nil {
			t.Errorf("request with the cookie = %v", err)
		}
		for name, err := range map[string]error{
			"another user": at(stranger, cookie.Value), "another cookie": at(browser, "x"), "not encrypted": at(plain, cookie.Value), "the login": at(browser, secret),
			"a browser of unknown user": at(unknown, cookie.Value),
		} {
			if !api.IsStatus(err, http.StatusUnauthorized) {
				t.Errorf("%s: %v, want 401", name, err)
			}
		}
		time.Sleep(sessionTime)
		if err := at(browser, cookie.Value); !api.IsStatus(err, http.StatusUnauthorized) {
			t.Errorf("request after the session's end = %v, want 401", err)
		}
	})
}

// A browser that a token let in is its holder, until it is revoked.
func TestBrowserOfToken(t *testing.T) {
	p := NewPolicy(Options{})
	browser := Peer{Address: "127.0.0.1:9", Local: true}
	login := p.Login(from(t, browser, http.MethodPost, "Authorization", "Bearer revoked_token"))
	cookie, err := p.Enter(from(t, browser, http.MethodGet), login)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Accept(from(t, browser, http.MethodGet, "Cookie", cookie.String()), "GET /v1/jobs"); !api.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("request with the cookie of a revoked token = %v, want 401", err)
	}
}

func TestBrowsersAreBounded(t *testing.T) {
	p := NewPolicy(Options{})
	client := Peer{Local: true}
	first := p.Login(from(t, client, http.MethodPost))
	last := ""
	for range browsersMax {
		last = p.Login(from(t, client, http.MethodPost))
	}
	if n := len(p.browsers.logins); n != browsersMax {
		t.Errorf("%d logins are kept, want %d", n, browsersMax)
	}
	if _, err := p.Enter(from(t, client, http.MethodGet), first); err == nil {
		t.Error("the oldest login was kept")
	}
	if _, err := p.Enter(from(t, client, http.MethodGet), last); err != nil {
		t.Errorf("the newest login: %v", err)
	}
}

// What a page of another site can make a browser send is refused, also by a browser of this user.
func TestOrigins(t *testing.T) {
	p := NewPolicy(Options{})
	local := Peer{Address: "127.0.0.1:9", Local: true}
	cookie, err := p.Enter(from(t, local, http.MethodGet), p.Login(from(t, local, http.MethodPost)))
	if err != nil {
		t.Fatal(err)
	}
	const site, mode, dest, origin = "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Origin"
	for name, c := range map[string]struct {
		method  string
		headers []string
		cookie  bool
		ok      bool
	}{
		"curl":                     {"POST", nil, false, true},
		"typed address":            {"GET", []string{site, "none", mode, "navigate", dest, "document"}, true, true},
		"link of another site":     {"GET", []string{site, "cross-site", mode, "navigate", dest, "document"}, false, true},
		"frame of another site":    {"GET", []string{site, "cross-site", mode, "navigate", dest, "iframe"}, false, false},
		"script of another site":   {"GET", []string{site, "cross-site", mode, "no-cors", dest, "script"}, false, false},
		"fetch of another port":    {"GET", []string{site, "same-site", mode, "cors", dest, "empty"}, true, false},
		"form of another site":     {"POST", []string{site, "cross-site", origin, "https://evil.example"}, false, false},
		"form of another port":     {"POST", []string{site, "same-site", origin, "http://localhost:1"}, true, false},
		"old browser":              {"POST", []string{origin, "https://evil.example"}, false, false},
		"page of this server":      {"POST", []string{site, "same-origin", origin, "http://localhost"}, true, true},
		"page in an old browser":   {"POST", []string{origin, "http://localhost"}, true, true},
		"cookie of unknown origin": {"POST", nil, true, false},
		"cookie without a page":    {"DELETE", []string{site, "none"}, true, false},
		"read of this server":      {"GET", []string{site, "same-origin", mode, "cors", dest, "empty"}, true, true},
	} {
		r := from(t, local, c.method, c.headers...)
		if c.cookie {
			r.Header.Set("Cookie", cookieName+"="+cookie.Value)
		}
		if _, err := p.Accept(r, "POST /v1/jobs"); (err == nil) != c.ok || err != nil && !api.IsStatus(err, http.StatusForbidden) {
			t.Errorf("%s: Accept = %v, want it accepted: %v", name, err, c.ok)
		}
	}
}
