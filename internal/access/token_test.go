package access

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// tablesOf returns tables with these tokens.
func tablesOf(tb testing.TB, tokens ...*state.Token) *state.Access {
	tb.Helper()
	m, e := state.New(), state.NewEntry(1, state.FeatureLevel)
	for _, token := range tokens {
		e.PutToken("", token)
	}
	var out state.Result
	for i, data := range [][]byte{state.RaiseLevel(1, state.FeatureLevel, "v1").Data(), e.Data()} {
		if err := m.Apply(uint64(i+1), data, &out); err != nil {
			tb.Fatal(err)
		}
	}
	return m.Access()
}

// with returns a request with a token, from an address.
func with(tb testing.TB, token, address string) *http.Request {
	tb.Helper()
	r := httptest.NewRequestWithContext(context.WithValue(tb.Context(), peerKey{}, Peer{Address: address, Encrypted: true}), http.MethodGet, "http://localhost/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

const remote = "10.0.0.9:1234"

func TestToken(t *testing.T) {
	p := NewPolicy(Options{})
	token, text := NewToken(RoleSubmit, "ann")
	other, otherText := NewToken(RoleAdmin, "bob")
	old, oldText := NewToken(RoleSubmit, "eve")
	old.Expires = time.Now().Add(-time.Hour).UnixMilli()
	_, foreign := NewToken(RoleAdmin, "bob")
	p.SetAccess(tablesOf(t, token, other, old))

	for name, address := range map[string]string{"remote": remote, "unix": ""} {
		r, err := p.Accept(with(t, text, address), "POST /v1/jobs")
		want := Principal{Name: "ann", Role: RoleSubmit, Permissions: Read | Submit, Token: token.ID, Address: address, Action: "GET /"}
		if got := From(r.Context()); err != nil || got != want {
			t.Errorf("%s: the token is of %+v, %v, want %+v", name, got, err, want)
		}
	}
	local := with(t, text, remote)
	local = local.WithContext(context.WithValue(local.Context(), peerKey{}, Peer{Address: remote, Local: true, Encrypted: true}))
	if r, err := p.Accept(local, "POST /v1/jobs"); err != nil || From(r.Context()).Name != "ann" {
		t.Errorf("a local process with a token is %+v, %v, want the token's user", From(r.Context()), err)
	}

	valid := "the token is not valid"
	for name, c := range map[string]struct{ token, says string }{
		"none":            {"", "not complete: it has 0 characters"},
		"truncated":       {text[:len(text)-1], "not complete: it has 36 characters, and a whole one has 37"},
		"too long":        {text + "A", "not complete"},
		"id only":         {token.ID, "not complete"},
		"no separator":    {strings.Replace(text, "_", "-", 1), "not complete"},
		"wrong secret":    {token.ID + otherText[10:], valid},
		"unknown id":      {foreign, valid},
		"another's":       {other.ID + text[10:], valid},
		"expired":         {oldText, "expired at " + time.UnixMilli(old.Expires).UTC().Format(time.RFC3339) + ", and the clock of this leader says "},
		"expired, forged": {old.ID + text[10:], valid},
	} {
		r, err := p.Accept(with(t, c.token, fmt.Sprintf("10.0.1.%d:1", len(name))), "GET /v1/jobs")
		if !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), c.says) || From(r.Context()).Permissions != 0 {
			t.Errorf("%s: %v as %+v, want 401 that says %q", name, err, From(r.Context()), c.says)
		}
		if strings.Contains(fmt.Sprint(err), text[12:30]) {
			t.Errorf("%s: %v shows a secret", name, err)
		}
	}
	_, wrongSecret := FindToken(p.tables.Load(), token.ID+otherText[10:], time.Now())
	_, unknown := FindToken(p.tables.Load(), foreign, time.Now())
	if wrongSecret.Error() != unknown.Error() {
		t.Errorf("a wrong secret gives %q, and an unknown id %q: that tells which ids exist", wrongSecret, unknown)
	}
}

// TestWrongTokens: the rest goes on whatever one address sends.
func TestWrongTokens(t *testing.T) {
	p := NewPolicy(Options{})
	token, text := NewToken(RoleSubmit, "ann")
	p.SetAccess(tablesOf(t, token))
	_, wrong := NewToken(RoleSubmit, "ann")
	limited := 0
	for i := range 10_000 {
		_, err := p.Accept(with(t, wrong, fmt.Sprintf("10.0.0.9:%d", i)), "GET /v1/jobs")
		switch {
		case api.IsStatus(err, http.StatusTooManyRequests):
			limited++
		case !api.IsStatus(err, http.StatusUnauthorized):
			t.Fatalf("a wrong token: %v, want 401 or 429", err)
		}
	}
	if limited < 5000 {
		t.Errorf("%d of 10000 wrong tokens were refused as too many, want most", limited)
	}
	if _, err := p.Accept(with(t, text, remote), "GET /v1/jobs"); err != nil {
		t.Errorf("a right token from the same address: %v", err)
	}
	if _, err := p.Accept(with(t, wrong, "10.0.0.10:1"), "GET /v1/jobs"); !api.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("the first wrong token of another address: %v, want 401", err)
	}
}

// A server whose tables may be old does not refuse a token that is not in them, and counts none as wrong.
func TestTokenNotKnownYet(t *testing.T) {
	known, text := NewToken(RoleRead, "ann")
	_, later := NewToken(RoleRead, "ann")
	current := false
	p := NewPolicy(Options{Current: func() bool { return current }})
	p.SetAccess(tablesOf(t, known))
	accept := func(token string) error {
		_, err := p.Accept(with(t, token, remote), "GET /v1/jobs")
		return err
	}
	if err := accept(text); err != nil {
		t.Errorf("a token that is known: %v", err)
	}
	for range 2 * wrongBurst {
		if err := accept(later); !api.IsStatus(err, http.StatusServiceUnavailable) {
			t.Fatalf("a token that may be known later: %v, want 503", err)
		}
	}
	if err := accept(later[:20]); !api.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("a part of a token: %v, want 401", err)
	}
	current = true
	if err := accept(later); !api.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("a wrong token: %v, want 401", err)
	}
}

// A token that was created at another leader a moment ago is not refused.
func TestTokenOfAMomentAgo(t *testing.T) {
	known, text := NewToken(RoleRead, "ann")
	_, wrong := NewToken(RoleRead, "ann")
	var p *Policy
	asked, unreachable := 0, error(nil)
	p = NewPolicy(Options{CatchUp: func(context.Context) error {
		asked++
		p.SetAccess(tablesOf(t, known))
		return unreachable
	}})
	for i, test := range []struct {
		token string
		err   error
		code  int
	}{
		{text, nil, 0}, {text, nil, 0}, {wrong[:20], nil, http.StatusUnauthorized}, // asks once
		{wrong, nil, http.StatusUnauthorized}, {wrong, api.NotLeader("no majority"), http.StatusServiceUnavailable},
	} {
		unreachable = test.err
		if _, err := p.Accept(with(t, test.token, remote), "GET /v1/jobs"); test.code == 0 && err != nil || test.code != 0 && !api.IsStatus(err, test.code) {
			t.Errorf("request %d: %v, want %d", i, err, test.code)
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times, want 3", asked)
	}
}

func TestRates(t *testing.T) {
	rates := NewRates[netip.Prefix](wrongRate, wrongBurst)
	allow := func(address string, now time.Time) bool { return rates.Allow(networkOf(address), now) }
	now := time.Unix(1, 0)
	for i := range 3 * ratesMax {
		allow(fmt.Sprintf("[2001:db8:%x::1]:80", i), now)
	}
	if n := len(rates.byKey); n > ratesMax+1 {
		t.Errorf("%d addresses are remembered, want %d at most", n, ratesMax+1)
	}
	if allow("[2001:db8:ffff::1]:80", now) {
		t.Error("an address beyond the bound is not limited")
	}
	later := now.Add(time.Minute)
	if !allow("[2001:db8:ffff::1]:80", later) || len(rates.byKey) > 2 {
		t.Errorf("after a minute %d addresses are remembered, want the idle ones forgotten", len(rates.byKey))
	}
	for i := range wrongBurst {
		allow(fmt.Sprintf("[2001:db8::%x]:80", i), now)
	}
	if allow("[2001:db8::ffff]:80", now) || !allow("[2001:db8:0:1::1]:80", now) {
		t.Error("the addresses of one IPv6 network do not share a limit, or those of two do")
	}
}

// TestRevocation: a request in progress ends when its token is revoked, or expires.
func TestRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPolicy(Options{})
		token, text := NewToken(RoleRead, "ann")
		short, shortText := NewToken(RoleRead, "bob")
		short.Expires = time.Now().Add(time.Hour).UnixMilli()
		p.SetAccess(tablesOf(t, token, short))
		contexts := map[string]context.Context{}
		ends := map[string]context.CancelFunc{}
		for name, text := range map[string]string{"revoked": text, "expiring": shortText, "ended": text} {
			r := with(t, text, remote)
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			accepted, err := p.Accept(r.WithContext(ctx), "GET /v1/events")
			if err != nil {
				t.Fatal(err)
			}
			contexts[name], ends[name] = accepted.Context(), cancel //nolint:fatcontext // several, side by side
		}
		ends["ended"]()
		synctest.Wait()
		if n := len(p.sessions.open); n != 2 {
			t.Errorf("%d requests are in progress, want 2", n)
		}
		p.SetAccess(tablesOf(t, short))
		synctest.Wait()
		if err := context.Cause(contexts["revoked"]); !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "was revoked") {
			t.Errorf("the request of a revoked token ended with %v, want a 401 that says so", err)
		}
		if err := contexts["expiring"].Err(); err != nil {
			t.Errorf("the request of another token ended with %v", err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if err := context.Cause(contexts["expiring"]); !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "expired at") {
			t.Errorf("the request of an expired token ended with %v, want a 401 that says so", err)
		}
		if n := len(p.sessions.open); n != 0 {
			t.Errorf("%d requests are in progress, want none", n)
		}
	})
}

func TestRoles(t *testing.T) {
	for _, role := range Roles {
		if permissionsOf(role) == 0 || CheckRole(role) != nil {
			t.Errorf("role %s has no permissions, or is refused", role)
		}
	}
	if err := CheckRole("root"); err == nil || permissionsOf("root") != 0 {
		t.Errorf("CheckRole(root) = %v, and it has the permissions %b; want an error and none", err, permissionsOf("root"))
	}
	for who, want := range map[Principal]string{
		{Name: "ann", Role: RoleRead, Token: "t"}: `user "ann" has the role read by token t`, {Role: RoleWorker, Token: "t"}: "it has the role worker by token t",
	} {
		if got := who.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, c := range []struct {
		who  Principal
		user string
		owns bool
	}{
		{Principal{Name: "ann", Permissions: permissionsOf(RoleSubmit)}, "ann", true},
		{Principal{Name: "ann", Permissions: permissionsOf(RoleSubmit)}, "bob", false},
		{Principal{Name: "ann", Permissions: permissionsOf(RoleOperator)}, "bob", true},
		{Principal{}, "", false},
		{Principal{Permissions: permissionsOf(RoleRead)}, "", false},
		{local(), "bob", true},
	} {
		if got := c.who.Owns(c.user); got != c.owns {
			t.Errorf("%v: Owns(%q) = %v, want %v", c.who, c.user, got, c.owns)
		}
	}
}

// BenchmarkAccept is the cost of a request with a token.
func BenchmarkAccept(b *testing.B) {
	p := NewPolicy(Options{})
	token, text := NewToken(RoleSubmit, "ann")
	p.SetAccess(tablesOf(b, token))
	r := with(b, text, remote)
	for b.Loop() {
		ctx, cancel := context.WithCancel(r.Context())
		if _, err := p.Accept(r.WithContext(ctx), "GET /v1/jobs"); err != nil {
			b.Fatal(err)
		}
		cancel()
	}
}
