package access

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// now is the time of the tests.
var now = time.Date(2030, 3, 1, 12, 0, 0, 0, time.UTC)

func newAuthority(t *testing.T, key byte, at time.Time) Authority {
	t.Helper()
	a, err := NewAuthority(Key{key}, "test-1a2b", at)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a Authority, h Holder, c *Credentials, at time.Time) *x509.Certificate {
	t.Helper()
	raw, err := a.Issue(h, c.Public(), at, CertificateLife)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, raw)
}

func cross(t *testing.T, by, of Authority) *x509.Certificate {
	t.Helper()
	raw, err := by.Cross(of, now)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, raw)
}

func parse(t *testing.T, raw []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newCredentials(t *testing.T) *Credentials {
	t.Helper()
	c, err := OpenCredentials(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVerify(t *testing.T) {
	first, second, third := newAuthority(t, 1, now), newAuthority(t, 1, now), newAuthority(t, 1, now)
	other := newAuthority(t, 2, now)
	machine := newCredentials(t)
	leader, worker := Holder{Role: RoleLeader, Name: "d1", Hosts: []string{"10.0.0.7", "kaladin", "fe80::1%eth0"}}, Holder{Role: RoleWorker, Name: machine.Identity()}
	chain := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	pins := func(list ...Authority) (out []transport.Pin) {
		for _, a := range list {
			out = append(out, transport.PinOf(a.Certificate()))
		}
		return out
	}
	const client, server = x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	leaf := issue(t, first, leader, machine, now)
	rotated := issue(t, third, leader, machine, now)
	crosses := chain(cross(t, first, second), cross(t, second, third))
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		pins  []transport.Pin
		usage x509.ExtKeyUsage
		at    time.Time
		want  string // part of the error; empty: none
	}{
		"leader serves":          {chain(leaf, first.certificate), pins(first), server, now, ""},
		"leader dials":           {chain(leaf, first.certificate), pins(other, first), client, now, ""},
		"worker dials":           {chain(issue(t, first, worker, machine, now), first.certificate), pins(first), client, now, ""},
		"worker serves":          {chain(issue(t, first, worker, machine, now), first.certificate), pins(first), server, now, ""}, // a client compares the role, or the host name
		"rotated, old pin":       {slices.Concat(chain(rotated), crosses, chain(first.certificate)), pins(first), server, now, ""},
		"rotated, middle pin":    {slices.Concat(chain(rotated), crosses, chain(second.certificate)), pins(second), server, now, ""},
		"rotated, new pin":       {chain(rotated, third.certificate), pins(third), server, now, ""},
		"rotated, without cross": {chain(rotated, third.certificate, first.certificate), pins(first), server, now, "another cluster"},
		"old one, new pin":       {chain(leaf, first.certificate), pins(third), server, now, "another cluster"},
		"clock an hour late":     {chain(leaf, first.certificate), pins(first), client, now.Add(-59 * time.Minute), ""},
		"clock two hours late":   {chain(leaf, first.certificate), pins(first), client, now.Add(-2 * time.Hour), "check the clocks"},
		"expired":                {chain(leaf, first.certificate), pins(first), client, now.Add(25 * time.Hour), "expired at 2030-03-02 12:00:00 UTC, and the clock of this machine says 2030-03-02 13:00:00 UTC"},
		"other cluster":          {chain(issue(t, other, leader, machine, now), other.certificate), pins(first), client, now, "another cluster"},
		"swapped authority":      {chain(issue(t, other, leader, machine, now), first.certificate), pins(first), client, now, "another cluster"},
		"cut chain":              {chain(leaf), pins(first), client, now, "another cluster"},
		"no pins":                {chain(leaf, first.certificate), nil, client, now, "another cluster"},
		"nothing":                {nil, pins(first), client, now, "no certificate"},
		"issued by a leader":     {chain(parse(t, signedBy(t, leaf, machine)), leaf, first.certificate), pins(first), client, now, "another cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			err := transport.Verify(test.chain, test.pins, test.usage, test.at)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("Verify() = %v, want %q", err, test.want)
			}
		})
	}
	if err := leaf.VerifyHostname("kaladin"); err != nil {
		t.Error(err)
	}
	if got := holderOf(leaf); got.Role != RoleLeader || got.Name != "d1" {
		t.Errorf("holderOf() = %+v, want the leader d1", got)
	}
}

// signedBy is a certificate that a machine has issued to itself by its own certificate.
func signedBy(t *testing.T, parent *x509.Certificate, c *Credentials) []byte {
	t.Helper()
	raw, err := Authority{parent, c.key}.Issue(Holder{Role: RoleLeader, Name: "d2"}, c.Public(), now, CertificateLife)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestOpenAuthority(t *testing.T) {
	made := newAuthority(t, 1, now)
	again, err := OpenAuthority(Key{1}, made.Certificate())
	if err != nil || !again.key.Equal(made.key) {
		t.Errorf("OpenAuthority() = %v, want the same key", err)
	}
	if _, err := OpenAuthority(Key{2}, made.Certificate()); err == nil {
		t.Error("OpenAuthority() with another cluster key = nil, want an error")
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenCredentials(dir)
	if err != nil || c.Enrolled() || len(c.Identity()) != 64 {
		t.Fatalf("OpenCredentials() = %q, enrolled %v, %v", c.Identity(), c.Enrolled(), err)
	}
	a := newAuthority(t, 1, now)
	leaf := issue(t, a, Holder{Role: RoleWorker, Name: c.Identity()}, c, now)
	if err := c.Set(leaf, []*x509.Certificate{a.Certificate()}, nil); err != nil {
		t.Fatal(err)
	}
	again, err := OpenCredentials(dir)
	if err != nil || !again.Enrolled() || again.Identity() != c.Identity() || Fingerprint(leaf) != c.Identity() || !slices.Equal(again.Pins(), c.Pins()) {
		t.Errorf("OpenCredentials() again = %+v, %v, want the same", again, err)
	}
	if want := now.Add(CertificateLife / 2); !again.RenewAt().Equal(want) {
		t.Errorf("RenewAt() = %v, want %v", again.RenewAt(), want)
	}
	other := issue(t, a, Holder{Role: RoleWorker, Name: "x"}, newCredentials(t), now)
	if err := c.Set(other, []*x509.Certificate{a.Certificate()}, nil); err == nil {
		t.Error("Set() of another machine's certificate = nil, want an error")
	}
}

func TestDamagedCredentials(t *testing.T) {
	a := newAuthority(t, 1, now)
	for _, file := range []string{KeyFile, CertificateFile, AuthorityFile} {
		for name, damage := range map[string]func([]byte) []byte{
			"truncated": func(b []byte) []byte { return b[:len(b)/2] },
			"empty":     func([]byte) []byte { return nil },
			"of another machine": func([]byte) []byte {
				c := newCredentials(t)
				return EncodeCertificates(issue(t, a, Holder{Role: RoleWorker, Name: c.Identity()}, c, now))
			},
		} {
			if file == AuthorityFile && name == "of another machine" {
				continue // found when a leader is verified
			}
			c := newCredentials(t)
			if err := c.Set(issue(t, a, Holder{Role: RoleWorker, Name: c.Identity()}, c, now), []*x509.Certificate{a.Certificate()}, nil); err != nil {
				t.Fatal(err)
			}
			rewrite(t, c.dir, file, damage)
			if _, err := OpenCredentials(c.dir); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "again") {
				t.Errorf("%s %s: OpenCredentials() = %v, want an error that names the file and the way out", file, name, err)
			}
		}
	}
}

func rewrite(t *testing.T, dir, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := datadir.WriteFile(path, change(text)); err != nil {
		t.Fatal(err)
	}
}

// TestFirstAuthority: leaders with one key make the same authority, each for itself.
func TestFirstAuthority(t *testing.T) {
	first := func(key byte, cluster string, at time.Time) Authority {
		a, err := FirstAuthority(Key{key}, cluster, at)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	one, two := first(1, "test-1a2b", now), first(1, "test-1a2b", now.Add(time.Minute))
	leaf := issue(t, two, Holder{Role: RoleLeader, Name: "d2"}, newCredentials(t), now)
	for _, authority := range []Authority{one, two} { // as either has it
		if err := transport.Verify([]*x509.Certificate{leaf, authority.Certificate()}, []transport.Pin{transport.PinOf(one.Certificate())}, x509.ExtKeyUsageServerAuth, now); err != nil {
			t.Error(err)
		}
	}
	for _, other := range []Authority{first(2, "test-1a2b", now), first(1, "test-3c4d", now), newAuthority(t, 1, now)} {
		if transport.PinOf(other.Certificate()) == transport.PinOf(one.Certificate()) {
			t.Error("the authority of another key or cluster, or a later one, has the same key")
		}
	}
	if name := one.Certificate().Subject.CommonName; !IsAuthorityOf(name, "test-1a2b") || IsAuthorityOf(name, "test-1a") {
		t.Errorf("IsAuthorityOf(%q) is wrong", name)
	}
}
