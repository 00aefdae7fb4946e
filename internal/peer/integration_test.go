package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/wire"
)

var (
	_ Replica           = (*replica.Replica)(nil)
	_ replica.Transport = (*Transport)(nil)
)

// member is a real replica over a real transport. Its state is the lines that were proposed.
type member struct {
	t         *testing.T
	replica   *replica.Replica
	transport *Transport
	address   string
	log       *logNotes
	snapshots sync.WaitGroup
	carried   chan error // what Run of the transport has returned
	unlink    func()     // ends the transport
	stop      func()     // ends all

	mu    sync.Mutex
	lines [][]byte
	has   map[string]bool // lines
	// installed counts the snapshots that came from others.
	installed int
}

// startMember opens and runs a replica until the test ends.
func startMember(t *testing.T, l net.Listener, cfg replica.Config) *member {
	t.Helper()
	m := &member{t: t, address: l.Addr().String(), log: &logNotes{}, has: map[string]bool{}}
	m.transport = New(Config{Name: "test", Self: replica.Member{Address: m.address}, Version: "v1", Logger: slog.New(m.log)})
	cfg.Address, cfg.Transport, cfg.Logger, cfg.SnapshotBytes = m.address, m.transport, slog.New(m.log), 256<<10
	var err error
	if m.replica, err = replica.Open(cfg); err != nil {
		t.Fatal(err)
	}
	m.transport.Attach(m.replica)
	server := wire.NewServer()
	m.transport.Register(server)

	ctx, cancel := context.WithCancel(context.Background())
	linked, cut := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() { _ = server.Serve(l) })
	parts.Go(m.consume)
	ran := make(chan error, 1)
	m.carried = make(chan error, 1)
	go func() { ran <- m.replica.Run(ctx) }()
	go func() { m.carried <- m.transport.Run(linked) }()
	m.unlink = sync.OnceFunc(func() {
		cut()
		server.Stop()
		_ = m.unlinked()
	})
	m.stop = sync.OnceFunc(func() {
		m.unlink()
		cancel()
		if err := receive(t, ran, "the end of the replica"); err != nil && !errors.Is(err, replica.ErrRemoved) {
			t.Errorf("leader %d: Run() = %v", m.replica.ID(), err)
		}
		parts.Wait()
		m.snapshots.Wait()
	})
	t.Cleanup(func() {
		if t.Failed() {
			m.dump()
		}
		m.stop()
	})
	return m
}

// unlinked waits for the end of the transport, and gives what its Run has returned.
func (m *member) unlinked() error {
	m.t.Helper()
	err := receive(m.t, m.carried, "the end of the transport")
	m.carried <- err
	return err
}

// dump logs the state after a failure.
func (m *member) dump() {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.t.Logf("leader %d has %d lines, %d snapshots of others, and is %+v\n%s", m.replica.ID(), len(m.lines), m.installed,
		m.replica.Status(), strings.Join(m.log.all, "\n"))
}

// consume is the state machine.
func (m *member) consume() {
	var index uint64
	for e := range m.replica.Events() {
		m.mu.Lock()
		if e.Snapshot != nil {
			raw, err := io.ReadAll(e.Snapshot)
			if err = errors.Join(err, e.Snapshot.Close()); err != nil {
				m.t.Errorf("snapshot: %v", err)
			}
			m.lines, index = bytes.SplitAfter(raw, []byte("\n")), e.SnapshotIndex
			m.lines = m.lines[:len(m.lines)-1] // there is nothing after the last line
			m.installed++
			for _, line := range m.lines {
				m.has[string(line)] = true
			}
		}
		for _, entry := range e.Entries {
			m.lines, index = append(m.lines, entry.Data), entry.Index
			m.has[string(entry.Data)] = true
		}
		lines, at := m.lines, index
		m.mu.Unlock()
		if e.WantSnapshot {
			m.snapshots.Go(func() {
				err := m.replica.SaveSnapshot(at, func(w io.Writer) error {
					_, err := w.Write(bytes.Join(lines, nil))
					return err
				})
				slog.New(m.log).Info("saved a snapshot", "index", at, "error", err) // one that failed, as before the first entry, is asked for again
			})
		}
	}
}

// propose has the leader of ms add the lines from, from+1 .. to-1, again if they were lost with its leadership.
func propose(t *testing.T, ms []*member, from, to int) {
	t.Helper()
	for {
		lead := leader(t, ms)
		missing := lead.missing(from, to)
		if len(missing) == 0 {
			return
		}
		for _, line := range missing {
			err := lead.replica.Propose(t.Context(), line)
			if errors.Is(err, replica.ErrNotLeader) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the entries", func() bool {
			return len(lead.missing(from, to)) == 0 || !lead.replica.Status().Leader
		})
	}
}

// missing gives those of the lines that the state does not have.
func (m *member) missing(from, to int) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var missing [][]byte
	for i := from; i < to; i++ {
		line := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", 1000))
		if !m.has[line] {
			missing = append(missing, []byte(line))
		}
	}
	return missing
}

// leader waits until one of ms leads.
func leader(t *testing.T, ms []*member) *member {
	t.Helper()
	var lead *member
	eventually(t, "a leader", func() bool {
		i := slices.IndexFunc(ms, func(m *member) bool { return m.replica.Status().Leader })
		if i < 0 {
			return false
		}
		lead = ms[i]
		return true
	})
	return lead
}

// agree waits until all of them have the same state, with the lines 0 .. count-1.
func agree(t *testing.T, count int, ms ...*member) {
	t.Helper()
	eventually(t, "the same state everywhere", func() bool {
		var want []byte
		for i, m := range ms {
			m.mu.Lock()
			got := bytes.Join(m.lines, nil)
			m.mu.Unlock()
			if i == 0 {
				want = got
			}
			if !bytes.Equal(got, want) || len(m.missing(0, count)) > 0 {
				return false
			}
		}
		return true
	})
}

// eventually looks again and again whether ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// formed starts three members of a new cluster, in these folders.
func formed(t *testing.T, dir string) []*member {
	t.Helper()
	listeners, peers := make([]net.Listener, 3), make([]replica.Member, 3)
	for i := range peers {
		listeners[i] = newListener(t)
		peers[i] = replica.Member{ID: uint64(i + 1), Address: listeners[i].Addr().String(), Voter: true}
	}
	ms := make([]*member, 3)
	for i, l := range listeners {
		ms[i] = startMember(t, l, replica.Config{Dir: filepath.Join(dir, fmt.Sprint(i+1)), ID: uint64(i + 1), Peers: peers})
	}
	return ms
}

func without(ms []*member, gone *member) []*member {
	return slices.DeleteFunc(slices.Clone(ms), func(m *member) bool { return m == gone })
}

func TestClusterOverTCP(t *testing.T) {
	dir := t.TempDir()
	ms := formed(t, dir)
	propose(t, ms, 0, 100)
	agree(t, 100, ms...)
	eventually(t, "the names of all data directories in the log", func() bool {
		return !slices.ContainsFunc(ms[0].replica.Members().List, func(m replica.Member) bool { return m.Directory == "" })
	})

	// A leader that is cut off loses its leadership, and the others elect another one.
	deposed := leader(t, ms)
	deposed.unlink()
	if err := deposed.unlinked(); err != nil {
		t.Fatalf("Run() of the transport = %v", err)
	}
	rest := without(ms, deposed)
	propose(t, rest, 100, 200)
	agree(t, 200, rest...)
	eventually(t, "the old leader to notice", func() bool { return !deposed.replica.Status().Leader })

	// It comes back redirect.
	id := deposed.replica.ID()
	deposed.stop()
	back := startMember(t, newListener(t), replica.Config{Dir: filepath.Join(dir, fmt.Sprint(id))})
	ms = append(rest, back)
	agree(t, 200, ms...)
	eventually(t, "its new address in the log", func() bool {
		members := rest[0].replica.Members()
		m, _ := members.Get(id)
		return m.Address == back.address
	})
}

func TestFreshMemberCatchesUp(t *testing.T) {
	dir := t.TempDir()
	ms := formed(t, dir)
	propose(t, ms, 0, 2000) // two megabytes: snapshots were taken, and the log before them is gone
	agree(t, 2000, ms...)

	lead := leader(t, ms)
	follower := without(ms, lead)[0]
	l := newListener(t)
	self := replica.Member{Address: l.Addr().String(), Directory: "fresh"}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	place, err := Join(ctx, JoinConfig{Addresses: []string{follower.address}, Self: self, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if place.ID != 4 || place.Cluster != lead.replica.Members().Cluster {
		t.Fatalf("Join() = %+v, want id 4 in cluster %s", place, lead.replica.Members().Cluster)
	}
	again, err := Join(ctx, JoinConfig{Addresses: []string{lead.address}, Self: self, Name: "test"})
	if err != nil || again.ID != 4 {
		t.Fatalf("Join() once more = %+v, %v, want id 4", again, err)
	}
	fresh := startMember(t, l, replica.Config{
		Dir: filepath.Join(dir, "fresh"), ID: place.ID, Cluster: place.Cluster, Directory: self.Directory, Join: true,
		Peers: place.Members.List,
	})
	propose(t, ms, 2000, 2200)
	agree(t, 2200, append(ms, fresh)...)
	fresh.mu.Lock()
	if fresh.installed == 0 {
		t.Error("the new member was sent no snapshot, though the log does not go back to its beginning")
	}
	fresh.mu.Unlock()
	eventually(t, "the new member to have a vote", func() bool {
		members := lead.replica.Members()
		m, _ := members.Get(4)
		return m.Voter
	})
}

// Who comes back under a known id without its log would have the cluster forget what it has acknowledged.
func TestLostDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	ms := formed(t, dir)
	propose(t, ms, 0, 10)
	eventually(t, "the names of all data directories in the log", func() bool {
		return !slices.ContainsFunc(ms[0].replica.Members().List, func(m replica.Member) bool { return m.Directory == "" })
	})
	lost := ms[2]
	peers := slices.Clone(lost.replica.Members().List)
	for i := range peers {
		peers[i].Directory = "" // as an operator gives them
	}
	lost.stop()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", lost.address)
	if err != nil {
		t.Fatal(err)
	}
	empty := startMember(t, l, replica.Config{
		Dir: filepath.Join(dir, "empty"), ID: 3, Cluster: ms[0].replica.Members().Cluster, Peers: peers,
	})
	eventually(t, "the reason on both sides", func() bool {
		told := slices.ContainsFunc(ms[:2], func(m *member) bool {
			return len(m.log.with("a node was refused", "leader 3 was here before", "leaders remove 3")) > 0
		})
		return told && len(empty.log.with("refuses this node", "leader 3 was here before", "leaders remove 3")) > 0
	})
	if _, ok := errors.AsType[*RefusedError](empty.unlinked()); !ok {
		t.Errorf("Run() of the transport = %v, want a *RefusedError", empty.unlinked())
	}
	propose(t, ms[:2], 10, 20)
	agree(t, 20, ms[:2]...)
}
