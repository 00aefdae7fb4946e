package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/transport/outsidetest"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// company has certificates of an outside authority, in files.
type company struct {
	t         *testing.T
	dir       string
	authority *outsidetest.Authority
	ca        string
}

func newCompany(t *testing.T) company {
	t.Helper()
	c := company{t: t, dir: t.TempDir()}
	var err error
	if c.authority, err = outsidetest.New(); err == nil {
		c.ca, err = c.authority.Write(c.dir, "ca")
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// files writes a certificate for a name and a role, which change can change.
func (c company) files(name, role string, change func(*x509.Certificate)) transport.Files {
	c.t.Helper()
	host, _, _ := net.SplitHostPort(outsideAddress(c.t) + ":0")
	certificate, err := c.authority.Issue(pkix.Name{CommonName: name, Organization: []string{"ACME", role}}, []string{host}, change)
	if err != nil {
		c.t.Fatal(err)
	}
	f := transport.Files{Authority: c.ca}
	if f.Certificate, f.Key, err = outsidetest.Write(c.dir, name, certificate); err != nil {
		c.t.Fatal(err)
	}
	return f
}

// accessOf is that of a user who has files of an outside authority.
func accessOf(f transport.Files, leaders ...string) *client.Access {
	return &client.Access{Cluster: leaders, TLSAuthority: f.Authority, TLSCertificate: f.Certificate, TLSKey: f.Key}
}

// client returns a client of the leaders with these files.
func (c company) client(f transport.Files, leaders ...*secureLeader) *client.Client {
	c.t.Helper()
	a := accessOf(f)
	for _, l := range leaders {
		a.Cluster = append(a.Cluster, l.address())
	}
	out, err := client.New(nil, client.Options{Access: a, Patience: time.Minute})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(out.Close)
	return out
}

// join returns how a machine with these files joins a leader.
func (c company) join(l *secureLeader, role string, f transport.Files) transport.Join {
	c.t.Helper()
	j, err := ParseJoin(l.address(), role, f)
	if err != nil {
		c.t.Fatal(err)
	}
	return j
}

// TestOutsideAuthority: users, workers and leaders enter a cluster by certificates of a company, without a token.
func TestOutsideAuthority(t *testing.T) {
	acme := newCompany(t)
	listen := outsideAddress(t) + ":0"
	first := startLeader(t, node.ProcessConfig{DataDir: t.TempDir(), Listen: listen, Outside: acme.files("leader1", "bridgefour:leader", nil)})
	admin := acme.client(acme.files("root", "bridgefour:admin", nil), first)
	eventually(t, "the cluster can be changed", func() bool {
		_, err := admin.SetQuota(t.Context(), "ann", api.QuotaRequest{})
		return err == nil
	})
	files := acme.files("leader2", "bridgefour:leader", nil)
	second := startLeader(t, node.ProcessConfig{DataDir: t.TempDir(), Listen: listen, Outside: files, Invitation: new(acme.join(first, access.RoleLeader, files))})
	eventually(t, "both leaders vote", func() bool {
		list, err := admin.Leaders(t.Context())
		return err == nil && len(list.Leaders) == 2 && list.Leaders[0].Votes && list.Leaders[1].Votes
	})
	c := secureCluster{t: t, first: first, admin: admin}

	t.Run("user", func(t *testing.T) { acme.in(t).user(first, second) })
	t.Run("machines", func(t *testing.T) { acme.in(t).machines(c.in(t)) })
	t.Run("refused", func(t *testing.T) { acme.in(t).refused(first) })
	t.Run("revocation", func(t *testing.T) { acme.in(t).revocation(admin, first, second) })
}

func (c company) in(t *testing.T) company {
	t.Helper()
	c.t = t
	return c
}

// user uses the cluster by either leader: one redirects to the other.
func (c company) user(leaders ...*secureLeader) {
	t := c.t
	files := c.files("ann", "bridgefour:submit", nil)
	for _, l := range leaders {
		ann := c.client(files, l)
		who, err := ann.Identity(t.Context())
		if err != nil || who.User != "ann" || who.Role != access.RoleSubmit || who.Certificate == "" || who.Expires == nil {
			t.Fatalf("Identity() = %+v, %v, want ann's, until the certificate expires", who, err)
		}
		job, err := ann.Submit(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "AlwaysOk"}, Range: &api.Range{From: 1, To: 1}}, "")
		if err != nil || job.User != "ann" {
			t.Fatalf("the job is %+v, %v, want ann's", job, err)
		}
		bob := c.client(c.files("bob", "bridgefour:submit", nil), l)
		if _, err := bob.Stop(t.Context(), job.ID); !api.IsStatus(err, http.StatusForbidden) {
			t.Errorf("bob stops the job of ann: %v, want 403", err)
		}
		if _, err := ann.Tokens(t.Context()); !api.IsStatus(err, http.StatusForbidden) || !strings.Contains(err.Error(), `user "ann" has the role submit by a certificate`) {
			t.Errorf("ann lists the tokens: %v, want 403 that says who she is", err)
		}
		if _, err := ann.Stop(t.Context(), job.ID); err != nil {
			t.Error(err)
		}
	}
}

// machines enroll a worker, and others that may not.
func (c company) machines(cluster secureCluster) {
	t, l := c.t, cluster.first
	own := func() *access.Credentials {
		credentials, err := access.OpenCredentials(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return credentials
	}
	worker, files := own(), c.files("host1", "bridgefour:worker", nil)
	if _, err := worker.Enroll(t.Context(), c.join(l, access.RoleWorker, files), "", slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	cluster.session(worker)
	if err := worker.Renew(t.Context(), []string{l.address()}); err != nil {
		t.Errorf("the worker renews its certificate: %v", err)
	}
	for text, test := range map[string]struct{ role, directory string }{
		"of the role leader: a worker joins": {"bridgefour:leader", ""},
		"of the role worker: a leader joins": {"bridgefour:worker", "d9"},
		"not allowed":                        {"bridgefour:admin", ""},
		"gives 0 roles":                      {"worker", ""},
	} {
		machine := own()
		_, err := machine.Enroll(t.Context(), c.join(l, access.RoleWorker, c.files("host2", test.role, nil)), test.directory, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), text) || machine.Enrolled() {
			t.Errorf("Enroll() with %s = %v, want %q", test.role, err, text)
		}
	}
	wrong := files
	wrong.Authority = newCompany(t).ca
	if _, err := own().Enroll(t.Context(), c.join(l, access.RoleWorker, wrong), "", slog.New(slog.DiscardHandler)); !api.IsStatus(err, http.StatusUnauthorized) ||
		!strings.Contains(err.Error(), "unknown authority") || !strings.Contains(err.Error(), "--tls-ca") {
		t.Errorf("Enroll() at a server of another authority = %v, want a refusal that says so", err)
	}
	if err := cluster.admin.RevokeToken(t.Context(), worker.Identity()); !api.IsStatus(err, http.StatusConflict) || !strings.Contains(err.Error(), "workers remove") {
		t.Errorf("RevokeToken() of a worker's key = %v, want how to remove the worker", err)
	}

	// The company's certificate is none of the cluster, and gets a machine nothing but an enrolment.
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := wire.Connect(l.address(), func(ctx context.Context, address string) (net.Conn, error) {
		return transport.DialTLS(ctx, address, transport.ClientTLS(access.RoleLeader, worker.Pins, func() *tls.Certificate { return &pair }))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	for method := range methods(wire.Leader_ServiceDesc) {
		if err := call(t, conn, method, cluster.calls(worker.Identity())[method]); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s by the company's certificate = %v, want a refusal", method, err)
		}
	}
	if _, err := c.client(files, l).Workers(t.Context()); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("the workers, for the company's certificate of a worker: %v, want 403", err)
	}
}

// refused are certificates, and servers, that are not accepted. The error names the cause.
func (c company) refused(l *secureLeader) {
	t := c.t
	other := newCompany(t)
	swapped := c.files("eve", "bridgefour:submit", nil)
	swapped.Key = c.files("mal", "bridgefour:submit", nil).Key
	if _, err := client.New(nil, client.Options{Access: accessOf(swapped, l.address())}); err == nil ||
		!strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("a certificate with the key of another: %v, want an error that says so", err)
	}
	foreign := other.files("eve", "bridgefour:admin", nil)
	mixed := foreign
	mixed.Authority = c.ca
	for text, files := range map[string]transport.Files{
		"signed by unknown authority":        foreign,
		"not from the authority of --tls-ca": mixed,
		"the certificate expired at":         c.files("old", "bridgefour:admin", func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) }),
		"check the clocks":                   c.files("new", "bridgefour:admin", func(x *x509.Certificate) { x.NotBefore = time.Now().Add(time.Hour) }),
		"extended key usage":                 c.files("web", "bridgefour:admin", func(x *x509.Certificate) { x.ExtKeyUsage = x.ExtKeyUsage[1:] }),
		"gives 0 roles":                      c.files("joe", "admin", nil),
		"not authenticated":                  {Authority: c.ca},
	} {
		_, err := c.client(files, l).Workers(t.Context())
		if !api.IsStatus(err, http.StatusUnauthorized) && !api.IsStatus(err, http.StatusForbidden) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want a refusal that says so", text, err)
		}
	}
}

// revocation revokes the certificate of a user, which ends what is in progress, on each leader.
func (c company) revocation(admin *client.Client, leaders ...*secureLeader) {
	t := c.t
	files := c.files("eve", "bridgefour:submit", nil)
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := access.Fingerprint(pair.Leaf)
	var ends sync.WaitGroup
	for _, l := range leaders {
		cfg, err := files.ClientTLS()
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.address()+"/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Transport: transport.NewHTTPS(cfg)}).Do(r)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("GET /v1/events = %+v, %v", answer, err)
		}
		ends.Go(func() {
			_, _ = io.Copy(io.Discard, answer.Body) // until the leader ends it
			_ = answer.Body.Close()
		})
	}
	for range 2 { // the second one changes nothing
		if err := admin.RevokeToken(t.Context(), fingerprint); err != nil {
			t.Fatal(err)
		}
	}
	ends.Wait()
	for _, l := range leaders {
		if _, err := c.client(files, l).Workers(t.Context()); !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "was revoked") {
			t.Errorf("a request with a revoked certificate: %v, want 401 that says so", err)
		}
	}
	if _, err := c.client(c.files("ann", "bridgefour:submit", nil), leaders...).Workers(t.Context()); err != nil {
		t.Errorf("a request with another certificate: %v", err)
	}
	var revocations []*api.Audit
	for e, err := range admin.Events(t.Context(), &api.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Audit != nil && strings.HasPrefix(e.Audit.Action, "DELETE /v1/access/tokens/"+fingerprint) {
			revocations = append(revocations, e.Audit)
		}
		if len(revocations) == 2 {
			break
		}
	}
	if a := revocations[0]; a.User != "root" || a.Role != access.RoleAdmin || !access.IsFingerprint(a.Token) || a.Verdict != "" {
		t.Errorf("the audit record of the revocation is %+v, want who did it, by which certificate", a)
	}
}
