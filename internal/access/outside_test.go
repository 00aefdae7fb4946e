package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport/outsidetest"
)

func newOutside(t *testing.T) (a *outsidetest.Authority, pool func() *x509.CertPool) {
	t.Helper()
	a, err := outsidetest.New()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate)
	return a, func() *x509.CertPool { return roots }
}

func outsideCertificate(t *testing.T, a *outsidetest.Authority, name string, organizations ...string) *tls.Certificate {
	t.Helper()
	c, err := a.Issue(pkix.Name{CommonName: name, Organization: organizations}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// presenting returns a request by a connection with a certificate.
func presenting(ctx context.Context, c *tls.Certificate) *http.Request {
	peer := Peer{Address: remote, Encrypted: true, Outside: outsidetest.Chain(c)}
	return httptest.NewRequestWithContext(context.WithValue(ctx, peerKey{}, peer), http.MethodGet, "http://localhost/", nil)
}

// revocation returns tables in which the key of a certificate is revoked.
func revocation(t *testing.T, c *tls.Certificate) *state.Access {
	t.Helper()
	m, e := state.New(), state.NewEntry(1, state.FeatureLevel)
	e.Enroll("", &state.Enrolment{Fingerprint: Fingerprint(c.Leaf), Role: RoleOutside})
	e.RevokeMachine("", Fingerprint(c.Leaf))
	var out state.Result
	for i, data := range [][]byte{state.RaiseLevel(1, state.FeatureLevel, "v1").Data(), e.Data()} {
		if err := m.Apply(uint64(i+1), data, &out); err != nil {
			t.Fatal(err)
		}
	}
	return m.Access()
}

func TestOutsider(t *testing.T) {
	a, pool := newOutside(t)
	other, _ := newOutside(t)
	p := NewPolicy(Options{Outside: pool})
	for name, c := range map[string]struct {
		certificate *tls.Certificate
		status      int
		says        string
		want        Permission
	}{
		"a role":             {outsideCertificate(t, a, "ann", "bridgefour:submit"), 0, "", Read | Submit},
		"and others":         {outsideCertificate(t, a, "ann", "ACME", "system:masters", "bridgefour:admin"), 0, "", permissionsOf(RoleAdmin)},
		"a worker":           {outsideCertificate(t, a, "ann", "bridgefour:worker"), 0, "", Enroll},
		"a leader":           {outsideCertificate(t, a, "", "bridgefour:leader"), 0, "", Enroll},
		"no role":            {outsideCertificate(t, a, "ann", "ACME"), http.StatusForbidden, "gives 0 roles: want one O=bridgefour:ROLE", 0},
		"no prefix":          {outsideCertificate(t, a, "ann", "admin"), http.StatusForbidden, "gives 0 roles", 0},
		"another prefix":     {outsideCertificate(t, a, "ann", "Bridgefour:admin"), http.StatusForbidden, "gives 0 roles", 0},
		"two roles":          {outsideCertificate(t, a, "ann", "bridgefour:read", "bridgefour:admin"), http.StatusForbidden, "gives 2 roles", 0},
		"an unknown role":    {outsideCertificate(t, a, "ann", "bridgefour:root"), http.StatusForbidden, `unknown role "root"`, 0},
		"no name":            {outsideCertificate(t, a, "", "bridgefour:admin"), http.StatusForbidden, "needs a CN", 0},
		"a long name":        {outsideCertificate(t, a, strings.Repeat("a", 101), "bridgefour:read"), http.StatusForbidden, "needs a CN", 0},
		"an unprintable one": {outsideCertificate(t, a, "ann\n", "bridgefour:read"), http.StatusForbidden, "needs a CN", 0},
		"another authority":  {outsideCertificate(t, other, "ann", "bridgefour:admin"), http.StatusUnauthorized, "not from the authority of --tls-ca", 0},
	} {
		r, err := p.Accept(presenting(t.Context(), c.certificate), "GET /healthz")
		if c.status == 0 {
			leaf := c.certificate.Leaf
			want := Principal{
				Name: leaf.Subject.CommonName, Role: strings.TrimPrefix(leaf.Subject.Organization[len(leaf.Subject.Organization)-1], "bridgefour:"), Permissions: c.want,
				Outside: Fingerprint(leaf), Expires: leaf.NotAfter, Address: remote, Action: "GET /",
			}
			if got := From(r.Context()); err != nil || got != want {
				t.Errorf("%s: the certificate is of %+v, %v, want %+v", name, got, err, want)
			}
			continue
		}
		r, err = p.Accept(presenting(t.Context(), c.certificate), "GET /v1/jobs")
		if !api.IsStatus(err, c.status) || !strings.Contains(err.Error(), c.says) || From(r.Context()).Permissions != 0 {
			t.Errorf("%s: %v as %+v, want %d that says %q", name, err, From(r.Context()), c.status, c.says)
		}
	}

	// Without outside authorities the certificate means nothing, and a token says more than one.
	admin := outsideCertificate(t, a, "ann", "bridgefour:admin")
	if _, err := NewPolicy(Options{}).Accept(presenting(t.Context(), admin), "GET /v1/jobs"); !api.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("a certificate of a server without --tls-ca: %v, want 401", err)
	}
	starting := NewPolicy(Options{Outside: pool, Current: func() bool { return false }})
	if _, err := starting.Accept(presenting(t.Context(), admin), "GET /v1/jobs"); !api.IsStatus(err, http.StatusServiceUnavailable) {
		t.Errorf("a certificate of a server that may not know of its revocation: %v, want 503", err)
	}
	token, text := NewToken(RoleRead, "bob")
	p.SetAccess(tablesOf(t, token))
	r := presenting(t.Context(), admin)
	r.Header.Set("Authorization", "Bearer "+text)
	if r, err := p.Accept(r, "GET /v1/jobs"); err != nil || From(r.Context()).Name != "bob" {
		t.Errorf("a token by a connection with a certificate is of %+v, %v, want the token's user", From(r.Context()), err)
	}
	if _, err := p.acceptCall(presenting(t.Context(), admin).Context(), "/bridgefour.peer.v1.Peer/Invite"); err == nil {
		t.Error("the call of an outside certificate is accepted")
	}

	// A browser that the holder lets in is the holder.
	secret := p.Login(presenting(t.Context(), admin))
	browser := with(t, "", remote)
	browser.Header.Del("Authorization")
	cookie, err := p.Enter(browser, secret)
	if err != nil {
		t.Fatal(err)
	}
	browser.AddCookie(cookie)
	if r, err := p.Accept(browser, "GET /v1/jobs"); err != nil || From(r.Context()).Name != "ann" {
		t.Errorf("the browser is %+v, %v, want the holder of the certificate", From(r.Context()), err)
	}
	p.SetAccess(revocation(t, admin))
	if _, err := p.Accept(browser, "GET /v1/jobs"); !api.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("the browser of a revoked certificate: %v, want 401", err)
	}
}

// TestOutsideRevocation: a request in progress ends when its certificate is revoked, or expires, and when another authority takes over, no
// other begins.
func TestOutsideRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, accepted := newOutside(t)
		_, next := newOutside(t)
		now := accepted
		p := NewPolicy(Options{Outside: func() *x509.CertPool { return now() }})
		revoked, other := outsideCertificate(t, a, "ann", "bridgefour:read"), outsideCertificate(t, a, "bob", "bridgefour:read")
		begin := func(c *tls.Certificate) (context.Context, error) {
			r, err := p.Accept(presenting(t.Context(), c), "GET /v1/events")
			return r.Context(), err
		}
		first, err := begin(revoked)
		if err != nil {
			t.Fatal(err)
		}
		second, err := begin(other)
		if err != nil {
			t.Fatal(err)
		}
		p.SetAccess(revocation(t, revoked))
		synctest.Wait()
		if err := context.Cause(first); !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "was revoked") {
			t.Errorf("the request of a revoked certificate ended with %v, want a 401 that says so", err)
		}
		if _, err := begin(revoked); !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "was revoked") {
			t.Errorf("another request of it: %v, want a 401 that says so", err)
		}
		now = next
		if _, err := begin(other); !api.IsStatus(err, http.StatusUnauthorized) {
			t.Errorf("a certificate of an authority that is no longer accepted: %v, want 401", err)
		}
		now = accepted
		if _, err := begin(other); err != nil || second.Err() != nil {
			t.Errorf("another certificate: %v, and its request ended with %v", err, second.Err())
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if err := context.Cause(second); !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "expired at") {
			t.Errorf("the request of an expired certificate ended with %v, want a 401 that says so", err)
		}
		if _, err := begin(other); !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "expired at") {
			t.Errorf("an expired certificate: %v, want a 401 that says so", err)
		}
	})
}

// TestProvenKey: a request proves the key that has signed it, and no other.
func TestProvenKey(t *testing.T) {
	c := newCredentials(t)
	proof, err := c.proof()
	if err != nil {
		t.Fatal(err)
	}
	key, identity, err := ProvenKey(proof)
	if err != nil || identity != c.Identity() || !c.Public().Equal(key) {
		t.Errorf("ProvenKey() = %v, %s, %v, want the key of %s", key, identity, err, c.Identity())
	}
	for name, forged := range map[string][]byte{"none": nil, "damaged": append(proof[:len(proof)-1:len(proof)-1], proof[len(proof)-1]^1), "cut": proof[:len(proof)-1]} {
		if _, _, err := ProvenKey(forged); !api.IsStatus(err, http.StatusUnprocessableEntity) && !api.IsStatus(err, http.StatusBadRequest) {
			t.Errorf("%s: ProvenKey() = %v, want an error", name, err)
		}
	}
}
