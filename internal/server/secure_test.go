package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
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
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker"
	"github.com/bridgefour/bridgefour/jobs"
)

// secureCluster is a cluster whose connections are encrypted. All listen on all addresses of the machine.
type secureCluster struct {
	t     *testing.T
	first *secureLeader
	admin *client.Client
}

type secureLeader struct {
	*node.Process
	dir   string
	stop  func()
	ended chan struct{} // closed when Run has returned, with err
	err   error
}

// address is one of the leader's that is not loopback's.
func (l *secureLeader) address() string { return l.Advertised() }

// outsideAddress is an address of this machine that is not a loopback one.
func outsideAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("the machine has no address but loopback")
	return ""
}

// startSecure starts a leader on an address of the machine, or with the data directory of one that has ended.
func startSecure(t *testing.T, dir, listen string, join *transport.Join) *secureLeader {
	t.Helper()
	return startLeader(t, node.ProcessConfig{DataDir: dir, Listen: listen, Invitation: join})
}

func startLeader(t *testing.T, cfg node.ProcessConfig) *secureLeader {
	t.Helper()
	cfg.ClusterName, cfg.Logger = "test", slog.New(slog.NewTextHandler(t.Output(), nil))
	if cfg.Invitation != nil {
		cfg.Join = cfg.Invitation.Addresses
	}
	n, err := OpenLeader(t.Context(), cfg, jobs.All(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	l := &secureLeader{Process: n, dir: cfg.DataDir, ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		l.err = n.Run(ctx)
		if _, removed := errors.AsType[*peer.RefusedError](l.err); l.err != nil && !removed && !errors.Is(l.err, replica.ErrRemoved) {
			t.Error(l.err)
		}
	}()
	l.stop = func() {
		stop()
		<-l.ended
	}
	t.Cleanup(l.stop)
	return l
}

// in returns the cluster for a part of a test.
func (c secureCluster) in(t *testing.T) secureCluster {
	t.Helper()
	c.t = t
	return c
}

func newSecureCluster(t *testing.T) secureCluster {
	t.Helper()
	c := secureCluster{t: t, first: startSecure(t, t.TempDir(), outsideAddress(t)+":0", nil)}
	path := filepath.Join(c.first.dir, "admin.access")
	eventually(t, "admin.access is written", func() bool { return exists(path) })
	c.admin = c.client(readText(t, path))
	return c
}

func (c secureCluster) client(join string) *client.Client {
	c.t.Helper()
	a, err := client.JoinAccess(join)
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := client.New(nil, client.Options{Access: &a, Patience: time.Minute})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(out.Close)
	return out
}

// token returns the string for a role.
func (c secureCluster) token(role string) transport.Join {
	c.t.Helper()
	token, err := c.admin.CreateToken(c.t.Context(), api.TokenRequest{Role: role})
	if err != nil {
		c.t.Fatal(err)
	}
	j, err := transport.ParseJoin(token.Join)
	if err != nil {
		c.t.Fatal(err)
	}
	return j
}

// enroll returns the credentials of a new machine.
func (c secureCluster) enroll(role, name string) *access.Credentials {
	c.t.Helper()
	out, err := access.OpenCredentials(c.t.TempDir())
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := out.Enroll(c.t.Context(), c.token(role), name, slog.New(slog.DiscardHandler)); err != nil {
		c.t.Fatal(err)
	}
	return out
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within a minute: %s", what)
		case <-ticker.C:
		}
	}
}

func TestSecureCluster(t *testing.T) {
	c := newSecureCluster(t)
	second := startSecure(t, t.TempDir(), outsideAddress(t)+":0", new(c.token(access.RoleLeader)))
	eventually(t, "both leaders vote", func() bool {
		list, err := c.admin.Leaders(t.Context())
		return err == nil && len(list.Leaders) == 2 && list.Leaders[0].Votes && list.Leaders[1].Votes
	})

	t.Run("follower", func(t *testing.T) { c.in(t).follower(second) })
	t.Run("worker", func(t *testing.T) { c.in(t).worker() })
	t.Run("plain", func(t *testing.T) { c.in(t).plain() })
	t.Run("other identity", func(t *testing.T) { c.in(t).otherIdentity() })
	t.Run("tokens", func(t *testing.T) { c.in(t).wrongTokens() })
	t.Run("leader", func(t *testing.T) { c.in(t).forgedLeader() })
	t.Run("expired", func(t *testing.T) { c.in(t).expired() })
	t.Run("rotation", func(t *testing.T) { c.in(t).rotation(second) })
	t.Run("proxy", func(t *testing.T) { c.in(t).proxy() })
	t.Run("restart", func(t *testing.T) {
		// All certificates have expired: each leader renews its own by the cluster key.
		c.first.stop()
		second.stop()
		for _, l := range []*secureLeader{c.first, second} {
			expire(t, l.dir)
		}
		second = startSecure(t, second.dir, second.address(), nil)
		startSecure(t, c.first.dir, c.first.address(), nil)
		if _, err := c.admin.Cluster(t.Context()); err != nil {
			t.Error(err)
		}
		c.enroll(access.RoleWorker, "") // which needs a leader with both votes

		if err := c.admin.RemoveLeader(t.Context(), second.ID(), false); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			<-second.ended
			t.Logf("Run() = %v", second.err)
			if second.err == nil || !strings.Contains(second.err.Error(), "empty data directory") || !strings.Contains(second.err.Error(), "token create --role leader") {
				t.Errorf("Run() of a leader that was removed = %v, want the way back", second.err)
			}
			second = startSecure(t, second.dir, second.address(), nil)
		}
		removed, err := access.OpenCredentials(second.dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := removed.Renew(t.Context(), []string{c.first.address()}); err == nil || !strings.Contains(err.Error(), "was revoked") {
			t.Errorf("Renew() of a leader that was removed = %v, want a refusal", err)
		}
	})
}

// expire replaces the certificate in a data directory by one that expired yesterday.
func expire(t *testing.T, dir string) {
	t.Helper()
	c, err := access.OpenCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	leaf := c.Certificate().Leaf
	reissue(t, c, filepath.Join(dir, "cluster.key"), access.Holder{Role: leaf.Subject.Organization[0], Name: leaf.Subject.CommonName})
}

// reissue has an authority issue a certificate that expired yesterday.
func reissue(t *testing.T, c *access.Credentials, keyFile string, h access.Holder) {
	t.Helper()
	key, err := access.ParseKey(readText(t, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	authorities := c.Authorities()
	authority, err := access.OpenAuthority(key, authorities[len(authorities)-1])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := authority.Issue(h, c.Public(), time.Now().Add(-48*time.Hour), access.CertificateLife)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set(expired, authorities, c.Chain()); err != nil {
		t.Fatal(err)
	}
}

// worker runs a job on a worker, and removes the worker.
func (c secureCluster) worker() {
	t := c.t
	credentials := c.enroll(access.RoleWorker, "")
	w, err := worker.New(worker.Config{
		DataDir: t.TempDir(), Leaders: []string{c.first.address()}, Slots: 1, Jobs: jobs.All(), Logger: slog.New(slog.DiscardHandler),
		Identity: credentials.Identity(), Dial: credentials.Dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	var ended error
	run.Go(func() { ended = w.Run(ctx) })
	defer func() {
		stop()
		run.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	job, err := c.admin.Submit(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "AlwaysOk"}, Range: &api.Range{From: 1, To: 3}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if ended, err := c.admin.Wait(t.Context(), job.ID); err != nil || ended.Status != api.JobDone {
		t.Fatalf("the job is %+v, %v, want done", ended, err)
	}
	workers, err := c.admin.Workers(t.Context())
	if err != nil || len(workers) != 1 || workers[0].Identity != credentials.Identity() {
		t.Fatalf("workers %+v, %v, want the one, by the fingerprint of its key", workers, err)
	}
	c.forgedLogs(workers[0].ID)
	job, err = c.admin.Submit(t.Context(), &api.JobRequest{Program: api.Program{Command: []string{"sleep", "1000"}}, Range: &api.Range{From: 1, To: 1}}, "")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker runs the job", func() bool { return w.Slots()[0].Running })
	if err := c.admin.RemoveWorker(t.Context(), workers[0].ID); err != nil {
		t.Fatal(err)
	}
	run.Wait() // it ends by itself
	if !api.IsStatus(ended, http.StatusUnauthorized) || !strings.Contains(ended.Error(), "was revoked") || !strings.Contains(ended.Error(), access.KeyFile) ||
		!strings.Contains(w.State().Reason, "was revoked") || w.Slots()[0].Running {
		t.Errorf("Run() of a worker that was removed = %v, its state is %+v; want the way back, and nothing running", ended, w.State())
	}
	if _, err := c.admin.Stop(t.Context(), job.ID); err != nil {
		t.Error(err)
	}
	if err := credentials.Renew(t.Context(), []string{c.first.address()}); err == nil || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("Renew() = %v, want a refusal", err)
	}
}

// follower sends writes to the leader that follows: they are from the same user there, and the key of a machine is proven to the leader.
func (c secureCluster) follower(second *secureLeader) {
	t := c.t
	if _, leads := second.LeaderAddress(); leads {
		second = c.first
	}
	at := func(r api.TokenRequest) *client.Client {
		token, err := c.admin.CreateToken(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		j, err := transport.ParseJoin(token.Join)
		if err != nil {
			t.Fatal(err)
		}
		j.Addresses = []string{second.address()}
		if access.IsMachine(r.Role) {
			machine, err := access.OpenCredentials(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := machine.Enroll(t.Context(), j, "", slog.New(slog.DiscardHandler)); err != nil {
				t.Errorf("a worker joins at a follower: %v", err)
			}
			return nil
		}
		return c.client(j.String())
	}
	ann := at(api.TokenRequest{Role: access.RoleSubmit, User: "ann"})
	job, err := ann.Submit(t.Context(), &api.JobRequest{Range: &api.Range{From: 1, To: 1}, Program: api.Program{Command: []string{"true"}}}, "")
	if err != nil || job.User != "ann" {
		t.Fatalf("submit at a follower = %+v, %v; want a job of ann", job, err)
	}
	if _, err := at(api.TokenRequest{Role: access.RoleSubmit, User: "eve"}).Stop(t.Context(), job.ID); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("another user stops the job at a follower: %v, want 403", err)
	}
	if _, err := at(api.TokenRequest{Role: access.RoleRead}).Stop(t.Context(), job.ID); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("a reader stops the job at a follower: %v, want 403", err)
	}
	if stopped, err := ann.Stop(t.Context(), job.ID); err != nil || stopped.Status != api.JobStopped {
		t.Errorf("stop at a follower = %+v, %v", stopped, err)
	}
	if known := ann.URLs(); len(known) != 1 {
		t.Errorf("the client was sent to %q", known)
	}
	at(api.TokenRequest{Role: access.RoleWorker})
}

// forgedLogs has a worker answer a request for logs in the name of another one, and with a log of the other's attempt.
func (c secureCluster) forgedLogs(honest uint64) {
	t := c.t
	job, err := c.admin.Submit(t.Context(), &api.JobRequest{Program: api.Program{Command: []string{"sh", "-c", "echo honest >&2"}}, Range: &api.Range{From: 1, To: 1}}, "")
	if err == nil {
		job, err = c.admin.Wait(t.Context(), job.ID)
	}
	if err != nil || job.Status != api.JobDone {
		t.Fatalf("the job is %+v, %v, want done", job, err)
	}
	read := func() (list []api.LogRecord) {
		for r, err := range c.admin.Logs(t.Context(), api.LogQuery{Job: job.ID}) {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, r)
		}
		return list
	}
	want := read()
	if len(want) != 1 || string(want[0].Text) != "honest\n" {
		t.Fatalf("Logs() = %+v, want one record", want)
	}
	credentials := c.enroll(access.RoleWorker, "")
	conn, err := wire.Connect(c.first.address(), credentials.Dial)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	session, err := wire.NewLeaderClient(conn).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hello := &wire.Hello{Identity: credentials.Identity(), Incarnation: "x", Slots: 1, Protocol: wire.Protocol, ProtocolMin: wire.ProtocolMin}
	if err := session.Send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	next := func(is func(*wire.ToWorker) bool) (m *wire.ToWorker) {
		for m == nil || !is(m) {
			if m, err = session.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		return m
	}
	own := next(func(m *wire.ToWorker) bool { return m.GetWelcome() != nil }).GetWelcome().GetWorker()
	var forging sync.WaitGroup
	forging.Go(func() {
		request := next(func(m *wire.ToWorker) bool { return m.GetLog() != nil }).GetLog().GetRequest()
		for worker, accepted := range map[uint64]bool{honest: false, own: true} {
			call, err := wire.NewLeaderClient(conn).SendLog(t.Context())
			if err == nil {
				err = call.Send(&wire.LogRecords{Request: request, Worker: worker, Records: []*wire.LogRecord{
					{Attempt: 1, Lease: want[0].Lease, Text: []byte("forged\n")}, {Index: 9, Lease: 1 << 40, Text: []byte("no task\n")},
				}})
			}
			if err == nil {
				_, err = call.CloseAndRecv()
			}
			if ok := status.Code(err) != codes.PermissionDenied; ok != accepted {
				t.Errorf("SendLog() of worker %d = %v, want it accepted: %v", worker, err, accepted)
			}
		}
	})
	got := read()
	forging.Wait()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Logs() = %+v, want what the worker itself has sent, %+v", got, want)
	}
	if err := c.admin.RemoveWorker(t.Context(), own); err != nil {
		t.Error(err)
	}
}

// plain connects without encryption.
func (c secureCluster) plain() {
	t := c.t
	body, code := ask(t, &http.Client{Transport: transport.NewHTTP()}, "http://"+c.first.address()+"/v1/jobs")
	if code != http.StatusUnauthorized || !strings.Contains(body, "https://") || !strings.Contains(body, "--join") {
		t.Errorf("a plain request = %d %s, want 401 with the way in", code, body)
	}
	conn, err := wire.Connect(c.first.address(), transport.Dial)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	session, err := wire.NewLeaderClient(conn).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Recv(); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "--join") {
		t.Errorf("a plain worker gets %v, want the way in", err)
	}

	// The other way round: TLS on a port that does not speak it.
	open := startOpen(t)
	if _, err := c.enroll(access.RoleWorker, "").Dial(t.Context(), open); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("TLS to a plain leader = %v, want an error that says so", err)
	}
}

// startOpen starts a leader on loopback, which speaks no TLS.
func startOpen(t *testing.T) (address string) {
	t.Helper()
	return startSecure(t, t.TempDir(), "127.0.0.1:0", nil).Advertised()
}

func ask(t *testing.T, client *http.Client, url string) (body string, code int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return string(text), answer.StatusCode
}

// otherIdentity connects as a worker that claims the identity of another.
func (c secureCluster) otherIdentity() {
	t := c.t
	conn, err := wire.Connect(c.first.address(), c.enroll(access.RoleWorker, "").Dial)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	session, err := wire.NewLeaderClient(conn).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hello := &wire.Hello{Identity: c.enroll(access.RoleWorker, "").Identity(), Incarnation: "x", Slots: 1, Protocol: wire.Protocol, ProtocolMin: wire.ProtocolMin}
	if err := session.Send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Recv(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another worker's identity: %v, want a refusal", err)
	}
	// A worker is no leader.
	raft, err := peerpb.NewPeerClient(conn).Raft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raft.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("raft of a worker: %v, want a refusal", err)
	}
}

// wrongTokens enrolls with tokens that do not allow it.
func (c secureCluster) wrongTokens() {
	t := c.t
	revoked := c.token(access.RoleWorker)
	id, _, _ := strings.Cut(revoked.Token, "_")
	if err := c.admin.RevokeToken(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	truncated, swapped := c.token(access.RoleWorker), c.token(access.RoleLeader)
	truncated.Token = truncated.Token[:20]
	for text, test := range map[string]struct {
		join transport.Join
		name string
	}{
		"not valid":       {revoked, ""},
		"not complete":    {truncated, ""},
		"not allowed":     {c.token(access.RoleSubmit), ""},
		"the role leader": {swapped, ""},
		"the role worker": {c.token(access.RoleWorker), "d3"},
	} {
		machine, err := access.OpenCredentials(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		_, err = machine.Enroll(t.Context(), test.join, test.name, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), text) || machine.Enrolled() {
			t.Errorf("Enroll() = %v, want %q", err, text)
		}
	}
}

// forgedLeader is a leader with a certificate for one data directory and another in its messages.
func (c secureCluster) forgedLeader() {
	t := c.t
	conn, err := wire.Connect(c.first.address(), c.enroll(access.RoleLeader, "d1").Dial)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	_, err = peerpb.NewPeerClient(conn).Join(t.Context(), &peerpb.JoinRequest{Address: "10.0.0.9:1", Directory: "d2", Protocol: 1, ProtocolMin: 1, FeatureLevel: 99})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another leader's data directory: %v, want a refusal", err)
	}
}

// expired renews a certificate that has expired.
func (c secureCluster) expired() {
	t := c.t
	machine := c.enroll(access.RoleWorker, "")
	reissue(t, machine, filepath.Join(c.first.dir, "cluster.key"), access.Holder{Role: access.RoleWorker, Name: machine.Identity()})
	conn, err := wire.Connect(c.first.address(), machine.Dial)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	session, err := wire.NewLeaderClient(conn).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the session of an expired certificate: %v, want a refusal", err)
	}
	if err := machine.Renew(t.Context(), []string{c.first.address()}); err != nil {
		t.Fatal(err)
	}
	if until := time.Until(machine.Certificate().Leaf.NotAfter); until < access.CertificateLife/2 {
		t.Errorf("the renewed certificate is valid for %v", until)
	}
}

// rotation replaces the authority while clients and machines know the one before.
func (c secureCluster) rotation(second *secureLeader) {
	t := c.t
	before, old := c.token(access.RoleWorker), c.enroll(access.RoleWorker, "")
	if _, err := c.admin.RotateAuthority(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*secureLeader{c.first, second} {
		eventually(t, "the leader has a certificate of the new authority", func() bool {
			text, err := os.ReadFile(filepath.Join(l.dir, access.AuthorityFile))
			return err == nil && bytes.Count(text, []byte("BEGIN")) == 2
		})
	}
	c.admin.Close() // its connections
	if _, err := c.admin.Cluster(t.Context()); err != nil {
		t.Errorf("a client that knows the old authority: %v", err)
	}
	if len(c.token(access.RoleWorker).Token) == 0 || *c.token(access.RoleWorker).Authority == *before.Authority {
		t.Error("new strings name the old authority")
	}
	for _, address := range []string{c.first.address(), second.address()} {
		conn, err := old.Dial(t.Context(), address)
		if err != nil {
			t.Fatalf("a worker that knows the old authority: %v", err)
		}
		_ = conn.Close()
		if err := old.Renew(t.Context(), []string{address}); err != nil {
			t.Fatal(err)
		}
	}
	if !old.Of(before) {
		t.Error("the worker does not recognize its old string")
	}
	machine, err := access.OpenCredentials(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := machine.Enroll(t.Context(), before, "", slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("an old string: %v", err)
	}
}

// proxy passes bytes on, which does not matter, and then intercepts the connection.
func (c secureCluster) proxy() {
	t := c.t
	machine := c.enroll(access.RoleWorker, "")
	forged, err := access.NewAuthority(access.Key{9}, "forged", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := forged.Issue(access.Holder{Role: access.RoleLeader, Name: "x"}, machine.Public(), time.Now(), access.CertificateLife)
	if err != nil {
		t.Fatal(err)
	}
	intercepting := tls.Certificate{PrivateKey: machine.Certificate().PrivateKey, Certificate: [][]byte{raw, machine.Authorities()[0].Raw}}
	for name, cfg := range map[string]*tls.Config{"passing": nil, "intercepting": transport.ServerTLS(func() *tls.Certificate { return &intercepting }, nil, nil)} {
		l, err := transport.Listen(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var parts sync.WaitGroup
		parts.Go(func() {
			in, err := l.Accept()
			if err != nil {
				return
			}
			if cfg != nil {
				in = tls.Server(in, cfg)
			}
			out, err := transport.Dial(t.Context(), c.first.address())
			if err != nil {
				return
			}
			parts.Go(func() {
				_, _ = io.Copy(out, in)
				_ = out.Close()
			})
			_, _ = io.Copy(in, out)
			_ = in.Close()
		})
		conn, err := machine.Dial(t.Context(), l.Addr().String())
		if intercepts := cfg != nil; (err != nil) != intercepts || intercepts && !strings.Contains(err.Error(), "proxy") {
			t.Errorf("%s proxy: %v", name, err)
		}
		if conn != nil {
			_ = conn.Close()
		}
		_ = l.Close()
		parts.Wait()
	}
}

// TestOpenedLater: a cluster of this machine that has tokens already gets an authority, and the access of an admin, once it can be reached.
func TestOpenedLater(t *testing.T) {
	l := startSecure(t, t.TempDir(), "127.0.0.1:0", nil)
	eventually(t, "a token is created", func() bool {
		_, err := l.CreateToken(t.Context(), access.RoleSubmit, "ann", 0)
		return err == nil
	})
	l.stop()
	startSecure(t, l.dir, outsideAddress(t)+":0", nil)
	eventually(t, "admin.access is written", func() bool { return exists(filepath.Join(l.dir, "admin.access")) })
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
