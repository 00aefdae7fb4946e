package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// TestWorkerSavesItsCluster restarts a worker whose only configured address has moved.
func TestWorkerSavesItsCluster(t *testing.T) {
	first, second := newFakeLeader(t, "127.0.0.1:0"), newFakeLeader(t, "127.0.0.1:0")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cluster.tmp123"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := startWorker(t, Config{DataDir: dir, Leaders: []string{first.addr}, Slots: 1, ClusterName: "alpha"}, nothing)
	s := first.welcomedWith(&wire.Welcome{Worker: 7, Term: 3, Cluster: "alpha", ClusterId: "c1", Leaders: []string{first.addr}})
	h := s.hello
	if h.GetClusterId() != "" || h.GetClusterName() != "alpha" || h.GetProtocol() != wire.Protocol ||
		h.GetProtocolMin() != wire.ProtocolMin || h.GetUnixMs() == 0 {
		t.Errorf("hello = %v", h)
	}
	s.send(&wire.ToWorker{Message: &wire.ToWorker_Leaders{Leaders: &wire.Leaders{Addresses: []string{second.addr}}}})
	s.work(oneLease(jobMessage(1), 10, 1))
	s.report() // after the messages before it
	if st := w.State(); !st.Connected || st.Leader != first.addr || st.Term != 3 || st.Cluster != "alpha" || st.ClusterID != "c1" ||
		st.Reason != "" || st.Refused {
		t.Errorf("State() = %+v", st)
	}
	w.cancel(ErrStopNow)
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	first.server.Stop()
	if left, err := filepath.Glob(filepath.Join(dir, "*.tmp*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}

	startWorker(t, Config{DataDir: dir, Leaders: []string{"127.0.0.1:1"}, Slots: 1}, nothing)
	s = second.session()
	if got := s.hello.GetClusterId(); got != "c1" {
		t.Errorf("hello's cluster after a restart = %q, want c1", got)
	}
}

// TestRevokedWorker ends a session because the worker's key was revoked: its attempt is stopped, and Run says why.
func TestRevokedWorker(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	started, stopped := make(chan struct{}), make(chan struct{})
	w := startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, func(ctx context.Context, _ *runner.Attempt) runner.Outcome {
		close(started)
		<-ctx.Done()
		close(stopped)
		return runner.Outcome{}
	})
	w.mayFail = true
	s := l.welcomed()
	s.work(oneLease(jobMessage(1), 10, 1))
	<-started
	s.end <- wire.RevokedError("the key was revoked")
	<-stopped
	if err := w.end(); !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "the key was revoked") {
		t.Errorf("Run() = %v, want the refusal", err)
	}
	if st := w.State(); st.Connected || !st.Refused || !strings.Contains(st.Reason, "revoked") {
		t.Errorf("State() = %+v, want refused", st)
	}
	select {
	case <-l.sessions:
		t.Error("the worker has connected again")
	default:
	}
}

func TestWorkerOfAnotherCluster(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, membershipName)
	if err := os.WriteFile(file, []byte(`{"cluster_id":"c1","leaders":["a:1"],"later":"field"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{DataDir: dir, ClusterID: "c2", Slots: 1}); err == nil || !strings.Contains(err.Error(), "c1") ||
		!strings.Contains(err.Error(), "c2") || !strings.Contains(err.Error(), dir) {
		t.Errorf("New() for another cluster = %v, want an error that names both and the directory", err)
	}
	w, err := New(Config{DataDir: dir, ClusterID: "c1", Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", "[]", "\x00\x01"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{DataDir: dir, Slots: 1}); err == nil || !strings.Contains(err.Error(), file+" is damaged") {
			t.Errorf("New() with %q in %s = %v, want an error that it is damaged", text, file, err)
		}
	}
}

// TestMembershipFileRetries has the first write fail.
func TestMembershipFileRetries(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	var logged sync.WaitGroup
	logged.Add(1)
	f := newMembershipFile(dir, core.Membership{}, slog.New(onWarn{slog.DiscardHandler, logged.Done}))
	m := core.Membership{ClusterID: "c1", Leaders: []string{"a:1"}}
	var run sync.WaitGroup
	run.Go(f.run)
	f.save(m)
	logged.Wait()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.save(m)
	close(f.wake)
	run.Wait()
	got, err := loadMembership(dir)
	if err != nil || got.ClusterID != "c1" || !slices.Equal(got.Leaders, m.Leaders) {
		t.Errorf("loadMembership() = %+v, %v; want %+v", got, err, m)
	}
}

// onWarn calls f for each log record.
type onWarn struct {
	slog.Handler
	f func()
}

func (onWarn) Enabled(context.Context, slog.Level) bool { return true }

func (h onWarn) Handle(context.Context, slog.Record) error {
	h.f()
	return nil
}

func TestWorkerAfterARefusal(t *testing.T) {
	l, other := newFakeLeader(t, "127.0.0.1:0"), newFakeLeader(t, "127.0.0.1:0")
	l.refuse = status.Error(codes.FailedPrecondition, "identity is in use by worker 3 on host a")
	logged := make(chan struct{}, 16)
	noLeader := make(chan struct{}, 1)
	w := startWorker(t, Config{
		Leaders: []string{l.addr}, Slots: 1, Logger: slog.New(onError{slog.DiscardHandler, logged}),
		Announce: func(context.Context, string, string) { noLeader <- struct{}{} },
	}, nothing)
	l.session()
	<-logged
	<-noLeader
	st := w.State()
	if !st.Refused || st.Connected || !strings.Contains(st.Reason, "identity is in use by worker 3") || !strings.Contains(st.Reason, l.addr) {
		t.Errorf("State() = %+v, want the refusal", st)
	}
	// It still runs, and accepts an invitation.
	if err := w.Invite(t.Context(), []string{other.addr}, "c2", "beta", 0); err != nil {
		t.Fatalf("Invite() = %v", err)
	}
	s := other.welcomedWith(&wire.Welcome{Worker: 1, Term: 1, ClusterId: "c2"})
	s.work(oneLease(jobMessage(1), 10, 1))
	s.report() // after the Welcome
	if err := w.Invite(t.Context(), []string{l.addr}, "c9", "gamma", 0); err == nil || !strings.Contains(err.Error(), "c2") {
		t.Errorf("Invite() to another cluster = %v, want it refused", err)
	}
	w.cancel(ErrStopNow)
	if err := w.end(); err != nil {
		t.Errorf("Run() = %v", err)
	}
	if err := w.Invite(t.Context(), []string{l.addr}, "c2", "", 0); err == nil {
		t.Error("Invite() of an exited worker = nil, want an error")
	}
	if len(logged) > 0 || len(l.sessions) > 0 {
		t.Errorf("%d more errors logged, %d more sessions tried; want none within a minute", len(logged), len(l.sessions))
	}
}

// onError sends to logged for each error.
type onError struct {
	slog.Handler
	logged chan struct{}
}

func (onError) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }

func (h onError) Handle(context.Context, slog.Record) error {
	h.logged <- struct{}{}
	return nil
}

func TestWorkerSurvivesASilentLeader(t *testing.T) {
	first, second := newFakeLeader(t, "127.0.0.1:0"), newFakeLeader(t, "127.0.0.1:0")
	b := newBlocker()
	w := startWorker(t, Config{Leaders: []string{first.addr}, Slots: 1}, b.run)
	both := []string{first.addr, second.addr}
	s := first.welcomedWith(&wire.Welcome{Worker: 7, Term: 1, Leaders: both, SilenceMs: 1000})
	s.work(oneLease(jobMessage(1), 50, 1))
	<-b.began // then the leader is silent
	s2 := second.welcomedWith(&wire.Welcome{Worker: 7, Term: 2, Leaders: both})
	if held := s2.hello.GetHeld(); len(held) != 1 || held[0].GetLease() != 50 || !held[0].GetStarted() {
		t.Errorf("held = %v, want 50, started", held)
	}
	b.end <- runner.Outcome{}
	if got := finishedLeases([]*wire.Report{s2.report()}); !slices.Equal(got, []uint64{50}) {
		t.Errorf("finished = %v, want 50", got)
	}
	// The second ends; the first resumes with an old term. It must not be followed.
	second.server.Stop()
	for s = first.session(); !s.offer(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{Worker: 7, Term: 1}}}); {
		s = first.session() // the worker has left the one before
	}
	<-s.ended
	if st := w.State(); st.Connected {
		t.Errorf("State() = %+v, want no leader", st)
	}
}

func TestWorkerFollowsARedirect(t *testing.T) {
	follower, leader := newFakeLeader(t, "127.0.0.1:0"), newFakeLeader(t, "127.0.0.1:0")
	startWorker(t, Config{Leaders: []string{follower.addr}, Slots: 1}, nothing)
	s := follower.session()
	s.send(&wire.ToWorker{Message: &wire.ToWorker_Elsewhere{Elsewhere: &wire.Elsewhere{Leader: leader.addr}}})
	leader.welcomedWith(&wire.Welcome{Worker: 1, Term: 1})
}

// TestWorkerDialsByZone dials an address that is valid on one interface only.
func TestWorkerDialsByZone(t *testing.T) {
	if _, err := net.ResolveTCPAddr("tcp", "[::1%lo]:1"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	var lc net.ListenConfig
	probe, err := lc.Listen(t.Context(), "tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	l := newFakeLeader(t, "[::1]:0")
	startWorker(t, Config{Leaders: []string{strings.Replace(l.addr, "[::1]", "[::1%lo]", 1)}, Slots: 1}, nothing)
	l.welcomedWith(&wire.Welcome{Worker: 1, Term: 1})
}

func TestWorkerDiscoversAndAnnounces(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	announced, unannounced := make(chan string, 1), make(chan error, 1)
	asked := make(chan string, 16)
	start := make(chan struct{})
	w := startWorker(t, Config{
		Slots: 1, ClusterID: "c1",
		Discover: func(ctx context.Context, clusterID string) ([]string, error) {
			asked <- clusterID
			select {
			case <-start:
				return []string{l.addr}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		Announce: func(ctx context.Context, identity, clusterID string) {
			announced <- identity + " of " + clusterID
			<-ctx.Done()
			unannounced <- context.Cause(ctx)
		},
	}, nothing)
	if got := <-asked; got != "c1" {
		t.Errorf("Discover() for cluster %q, want c1", got)
	}
	if got, want := <-announced, w.dir.identity+" of c1"; got != want {
		t.Errorf("announced as %q, want %q", got, want)
	}
	close(start)
	l.welcomedWith(&wire.Welcome{Worker: 1, Term: 1, ClusterId: "c1"})
	if err := <-unannounced; !errors.Is(err, errJoined) {
		t.Errorf("the announcement ended with %v, want %v", err, errJoined)
	}
}
