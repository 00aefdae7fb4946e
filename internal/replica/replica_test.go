package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/goleak"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// testSegmentBytes is the size of the log's files in tests, not in benchmarks: small, so that little data makes many.
const testSegmentBytes = 2 << 20

func TestMain(m *testing.M) {
	flag.Parse()
	if runChild() {
		return
	}
	if flag.Lookup("test.bench").Value.String() == "" {
		setSegmentBytes()
		wal.SegmentSizeBytes = testSegmentBytes
	}
	goleak.VerifyTestMain(m)
}

// node is a running replica with a consumer that collects its events.
type node struct {
	*Replica
	t      testing.TB
	cancel context.CancelFunc
	ended  chan error

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each event
	snapshot []byte
	snapAt   uint64
	entries  []Entry
	roles    []Role
	wants    int
	full     error
	fulls    int
}

// start opens and runs a replica on dir; it stops with the test.
func start(tb testing.TB, cfg Config) *node {
	tb.Helper()
	r, err := Open(cfg)
	if err != nil {
		tb.Fatalf("Open(%s) = %v", cfg.Dir, err)
	}
	return run(tb, r)
}

func run(tb testing.TB, r *Replica) *node {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Replica: r, t: tb, cancel: cancel, ended: make(chan error, 1), changed: make(chan struct{})}
	consumed := make(chan struct{})
	go func() {
		defer close(consumed)
		for e := range r.Events() {
			n.handle(e)
		}
	}()
	go func() {
		err := r.Run(ctx)
		<-consumed
		n.ended <- err
	}()
	tb.Cleanup(func() {
		if n.cancel != nil {
			n.stop()
		}
	})
	return n
}

func (n *node) handle(e Event) {
	var body []byte
	var err error
	if e.Snapshot != nil {
		body, err = io.ReadAll(e.Snapshot)
		err = errors.Join(err, e.Snapshot.Close())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.t.Errorf("read snapshot: %v", err)
	}
	switch {
	case e.Snapshot != nil:
		n.snapshot, n.snapAt = body, e.SnapshotIndex
	case e.Role != nil:
		n.roles = append(n.roles, *e.Role)
	case e.WantSnapshot:
		n.wants++
	case e.LogFull != nil:
		n.full = e.LogFull
		n.fulls++
	case e.LogRoom:
		n.full = nil
	}
	n.entries = append(n.entries, e.Entries...)
	close(n.changed)
	n.changed = make(chan struct{})
}

// until waits until cond, which is called with the lock held, holds.
func (n *node) until(what string, cond func() bool) {
	n.t.Helper()
	for {
		n.mu.Lock()
		ok, changed := cond(), n.changed
		n.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case err := <-n.ended:
			n.t.Fatalf("Run() = %v while waiting for %s", err, what)
		}
	}
}

func (n *node) lead() *node {
	n.t.Helper()
	n.until("leadership", func() bool { return len(n.roles) > 0 && n.roles[len(n.roles)-1].Leader })
	return n
}

func (n *node) propose(data string) {
	n.t.Helper()
	if err := n.Propose(context.Background(), []byte(data)); err != nil {
		n.t.Fatalf("Propose(%q) = %v", data, err)
	}
}

// stop ends the replica and hands back what Run returned.
func (n *node) stop() {
	n.t.Helper()
	n.cancel()
	n.cancel = nil
	if err := <-n.ended; err != nil {
		n.t.Errorf("Run() = %v, want nil", err)
	}
}

func (n *node) untilEntries(count int) {
	n.t.Helper()
	n.until(fmt.Sprintf("%d entries", count), func() bool { return len(n.entries) >= count })
}

// wantNumbers checks that the entries are from..to-1, once each, in order, with rising indexes.
func (n *node) wantNumbers(from, to int) {
	n.t.Helper()
	n.untilEntries(to - from)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.entries) != to-from {
		n.t.Fatalf("%d entries delivered, want %d", len(n.entries), to-from)
	}
	for i, e := range n.entries {
		if got := number(e.Data); got != from+i {
			n.t.Fatalf("entry %d = %d, want %d", i, got, from+i)
		}
		if i > 0 && e.Index <= n.entries[i-1].Index {
			n.t.Fatalf("index %d follows %d", e.Index, n.entries[i-1].Index)
		}
	}
}

// numbered is an entry of some size that begins with its number.
func numbered(i, size int) []byte {
	b := bytes.Repeat([]byte{byte(i)*2 + 1}, max(8, size)) // never a zero
	binary.LittleEndian.PutUint64(b, uint64(i))
	return b
}

func number(b []byte) int { return int(binary.LittleEndian.Uint64(b)) }

func (n *node) proposeNumbers(from, to, size int) {
	n.t.Helper()
	for i := from; i < to; i++ {
		if err := n.Propose(context.Background(), numbered(i, size)); err != nil {
			n.t.Fatalf("Propose(%d) = %v", i, err)
		}
	}
}

func TestLoneLeaderAndRestart(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 100, 10)
	n.wantNumbers(0, 100)
	if got, want := n.roles, (Role{Leader: true, Term: 1, LeaderID: 1}); len(got) != 1 || got[0] != want {
		t.Errorf("roles = %v, want only %v", got, want)
	}
	st := n.Status()
	if !st.Leader || st.ID != 1 || st.LeaderID != 1 || st.Term != 1 || st.Committed < 100 || st.Last < st.Committed {
		t.Errorf("Status() = %+v", st)
	}
	n.stop()
	for life := range 3 { // replayed once in each life, however often
		n = start(t, Config{Dir: dir}).lead()
		n.wantNumbers(0, 100+life)
		if got := n.roles[0].Term; got != uint64(life+2) {
			t.Errorf("term = %d, want %d", got, life+2)
		}
		n.proposeNumbers(100+life, 101+life, 10)
		n.wantNumbers(0, 101+life)
		n.stop()
	}
}

func TestLeaderIsToldAfterOlderEntries(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 1000, 10_000) // several deliveries' worth
	n.wantNumbers(0, 1000)
	n.stop()
	r, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	count := 0
	for e := range r.Events() {
		count += len(e.Entries)
		if e.Role != nil && e.Role.Leader {
			break
		}
	}
	if count != 1000 {
		t.Errorf("leader announced after %d entries, want 1000", count)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestProposeIsRefused(t *testing.T) {
	n := start(t, Config{Dir: t.TempDir()}).lead()
	if err := n.Propose(context.Background(), nil); err == nil {
		t.Error("an entry without data was taken")
	}
	if err := n.Propose(context.Background(), make([]byte, EntryBytesMax+1)); !errors.Is(err, ErrEntryTooLarge) {
		t.Errorf("Propose of an entry above the limit = %v, want ErrEntryTooLarge", err)
	}
	n.stop()
	if err := n.Propose(context.Background(), []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Propose after the end = %v, want ErrClosed", err)
	}
	if err := n.SaveSnapshot(1, func(io.Writer) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("SaveSnapshot after the end = %v, want ErrClosed", err)
	}
	if err := n.Run(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("second Run = %v, want ErrClosed", err)
	}

	r, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 2 * proposalsQueued { // it is not run: the queue fills, nothing hangs
		if err := r.Propose(ctx, []byte("x")); !errors.Is(err, context.Canceled) {
			t.Fatalf("Propose = %v, want context.Canceled", err)
		}
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, open := <-r.Events(); open {
		t.Error("an event after Close")
	}
}

func TestRunEndsWhenTheLogCannotBeWritten(t *testing.T) {
	r, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.journal.w.Close(); err != nil {
		t.Fatal(err)
	}
	err = r.Run(context.Background())
	if err == nil || !containsAll(err.Error(), "write log", r.journal.walDir()) {
		t.Errorf("Run() = %v, want an error that names the log", err)
	}
	for e := range r.Events() {
		t.Errorf("told %+v", e)
	}
	if err := r.Propose(context.Background(), []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Propose = %v, want ErrClosed", err)
	}
}

func TestConsumerMayProposeBelowTheBound(t *testing.T) {
	r, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	for e := range r.Events() {
		if e.Role != nil {
			break
		}
	}
	const size = 1 << 20
	const count = core.InFlightBytesMax/size - 1
	for i := range count { // events are not read meanwhile; it must not wait for itself
		if err := r.Propose(ctx, numbered(i, size)); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	for got < count {
		e := <-r.Events()
		for _, e := range e.Entries {
			if number(e.Data) != got {
				t.Fatalf("entry %d, want %d", number(e.Data), got)
			}
			got++
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOneProcessADirectory(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	_, err := Open(Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s is in use by process ", dir)) {
		t.Fatalf("second Open = %v, want an error that names directory and process", err)
	}
	n.propose("still there")
	n.untilEntries(1)
	n.stop()
	start(t, Config{Dir: dir}).lead().untilEntries(1)
}

func TestIDStaysWithTheDirectory(t *testing.T) {
	dir := t.TempDir()
	start(t, Config{Dir: dir, ID: 7}).lead().stop()
	if _, err := Open(Config{Dir: dir, ID: 8}); err == nil || !strings.Contains(err.Error(), "belongs to member 7, not 8") {
		t.Errorf("Open with another id = %v", err)
	}
	if n := start(t, Config{Dir: dir}).lead(); n.Status().ID != 7 {
		t.Errorf("id = %d, want 7", n.Status().ID)
	}
}

func TestManyProposersKeepTheirOrder(t *testing.T) {
	n := start(t, Config{Dir: t.TempDir()}).lead()
	const proposers, each = 16, 200
	var wg sync.WaitGroup
	for p := range proposers {
		wg.Go(func() {
			for i := range each {
				if err := n.Propose(context.Background(), numbered(p*each+i, 50)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n.untilEntries(proposers * each)
	next := map[int]int{}
	for _, e := range n.entries {
		p, i := number(e.Data)/each, number(e.Data)%each
		if next[p] != i {
			t.Fatalf("proposer %d: entry %d, want %d", p, i, next[p])
		}
		next[p]++
	}
}

// logText is a logger and what it wrote.
func logText() (*slog.Logger, *syncBuffer) {
	buf := &syncBuffer{}
	return slog.New(slog.NewTextHandler(buf, nil)), buf
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func walFiles(tb testing.TB, dir string) []segment {
	tb.Helper()
	segs, err := listSegments(filepath.Join(dir, "wal"))
	if err != nil {
		tb.Fatal(err)
	}
	return segs
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		start(b, Config{Dir: b.TempDir()}).lead().stop()
	}
}

func BenchmarkRestart(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		start(b, Config{Dir: dir}).lead().stop()
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, bc := range []struct {
		name             string
		bytes, proposers int
	}{{"100KB/16_in_flight", 100_000, 16}, {"100B/1_in_flight", 100, 1}, {"100B/64_in_flight", 100, 64}, {"100B/1024_in_flight", 100, 1024}} {
		b.Run(bc.name, func(b *testing.B) { benchmarkPropose(b, bc.bytes, bc.proposers) })
	}
}

// benchmarkPropose keeps inFlight entries on their way and measures the time from the first proposal to the last event.
func benchmarkPropose(b *testing.B, size, inFlight int) {
	b.Helper()
	r, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	for e := range r.Events() {
		if e.Role != nil {
			break
		}
	}
	data := bytes.Repeat([]byte{1}, size)
	slots := make(chan struct{}, inFlight)
	b.SetBytes(int64(size))
	b.ResetTimer()
	go func() {
		for range b.N {
			slots <- struct{}{}
			if err := r.Propose(ctx, data); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	snapshots := make(chan error, 1)
	snapshots <- nil
	for got := 0; got < b.N; {
		e := <-r.Events()
		for range e.Entries {
			got++
			<-slots
		}
		if e.WantSnapshot {
			if err := <-snapshots; err != nil {
				b.Error(err)
			}
			index := r.Status().Applied - 1
			go func() {
				snapshots <- r.SaveSnapshot(index, func(w io.Writer) error { _, err := w.Write(data); return err })
			}()
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	if err := <-snapshots; err != nil {
		b.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

// BenchmarkTransitions measures durable transitions: entries of 1,000 times 64 bytes, 16 of them in flight, with one replica and with
// three whose logs share one disk.
func BenchmarkTransitions(b *testing.B) {
	const perEntry, inFlight = 1000, 16
	for _, size := range []uint64{1, 3} {
		b.Run(fmt.Sprintf("%d_replicas", size), func(b *testing.B) {
			f := newFleet(b)
			var peers []Member
			for id := range size {
				peers = append(peers, Member{ID: id + 1, Address: fmt.Sprint("a", id+1)})
			}
			for _, p := range peers {
				f.start(Config{Dir: b.TempDir(), ID: p.ID, Address: p.Address, Peers: peers, Tick: defaultTick})
			}
			leader := f.leader()
			b.SetBytes(perEntry * 64)
			b.ResetTimer()
			for i := range b.N {
				if err := leader.Propose(b.Context(), numbered(i, perEntry*64)); err != nil {
					b.Fatal(err)
				}
				f.until("room", func() bool { return len(leader.numbers) > i-inFlight })
			}
			f.until("the end", func() bool { return len(leader.numbers) >= b.N })
			b.StopTimer()
			b.ReportMetric(float64(b.N*perEntry)/b.Elapsed().Seconds(), "transitions/s")
		})
	}
}
