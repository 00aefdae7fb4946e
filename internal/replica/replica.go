package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Why a proposal was not taken. It is then certain that it is not in the log.
var (
	// ErrNotLeader: this node does not lead, or not yet, or no more.
	ErrNotLeader = errors.New("this node does not lead")
	// ErrClosed: Run has ended.
	ErrClosed = errors.New("the replicated log is closed")
)

const (
	defaultTick          = 10 * time.Millisecond
	defaultSnapshotBytes = 64 << 20
	// Ticks of an election and of a heartbeat. A lone voter campaigns at once and has nobody to wait for.
	electionTicks  = 2
	heartbeatTicks = 1

	eventsQueued    = 16
	proposalsQueued = 64
)

// Config says where and how a replica keeps its log.
type Config struct {
	// Dir is the data directory: Dir/wal, Dir/snap; created where missing. One process at a time can use it.
	Dir string
	// ID is the member's; it does not change in the life of a data directory. Defaults to 1, or to what Dir says.
	ID uint64
	// Tick is the unit of election and heartbeat times. Defaults to 10 ms.
	Tick time.Duration
	// Logger defaults to one that drops everything.
	Logger *slog.Logger
	// SnapshotBytes is the growth of the log after which a snapshot is asked for. Defaults to 64 MiB.
	SnapshotBytes int64
}

// Event tells the consumer one thing; exactly one of its fields (with SnapshotIndex, one of two) is set.
type Event struct {
	// Snapshot is the state to start from: the first event, where there is one. The consumer closes it. It was verified
	// when the log was opened.
	Snapshot      io.ReadCloser
	SnapshotIndex uint64
	// Entries are committed and on this node's disk. They follow each other, and the snapshot, without a gap or a double (indexes
	// that are missing are raft's own entries). Data must not be changed.
	Entries []Entry
	// Role: this node's role changed. Leader is set once every entry of earlier terms has been delivered.
	Role *Role
	// WantSnapshot: the log has grown; please call SaveSnapshot soon. Not repeated while one is being saved.
	WantSnapshot bool
	// LogFull: there is no room for the log, so nothing can be proposed; matches ErrLogFull and tells a person what to do.
	// What was proposed before still stands. It holds until LogRoom.
	LogFull error
	// LogRoom: there is room for the log again.
	LogRoom bool
}

// Entry is one proposal that is committed.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// Role is what a node is in a term. LeaderID is 0 while no leader is known.
type Role struct {
	Leader   bool
	Term     uint64
	LeaderID uint64
}

// Status is a view of the replica at one moment.
type Status struct {
	ID        uint64
	Term      uint64
	Leader    bool
	LeaderID  uint64
	Committed uint64 // index
	Applied   uint64 // index up to which events were delivered
	Last      uint64 // index of the last entry, durable or not
	LogFull   error  // see Event.LogFull
}

// Replica is one member of the replicated log.
type Replica struct {
	cfg     Config
	id      uint64
	log     *slog.Logger
	lock    *os.File
	store   snapStore
	journal *journal
	core    *core
	snaps   []snapMeta // newest first, at most two; the loop's
	bytes   int64      // of the log at open
	body    *openSnapshot

	// Of the saver; tests change them.
	reserve    int64
	checkEvery time.Duration

	events    chan Event
	proposals chan proposal
	calls     chan func(*loop)
	done      chan struct{} // closed when Run ends
	started   atomic.Bool
	status    atomic.Pointer[Status]
}

type proposal struct {
	data    []byte
	verdict chan error // room for one
}

// Open recovers what cfg.Dir holds, or begins a cluster whose only member is this node. The caller must call Run or Close.
func Open(cfg Config) (*Replica, error) {
	if cfg.Tick <= 0 {
		cfg.Tick = defaultTick
	}
	if cfg.SnapshotBytes <= 0 {
		cfg.SnapshotBytes = defaultSnapshotBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Replica{
		cfg:       cfg,
		log:       cfg.Logger,
		store:     snapStore{dir: filepath.Join(cfg.Dir, "snap")},
		events:    make(chan Event, eventsQueued),
		proposals: make(chan proposal, proposalsQueued),
		calls:     make(chan func(*loop)),
		done:      make(chan struct{}),

		reserve:    reserveBytes,
		checkEvery: spaceCheckEvery,
	}
	if err := os.MkdirAll(r.store.dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	var err error
	if r.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, r.release())
	}
	return r, nil
}

// open recovers the log under the lock.
func (r *Replica) open() error {
	if err := r.store.removeTemporary(); err != nil {
		return err
	}
	id := max(r.cfg.ID, 1)
	var rec *recovered
	var err error
	if r.journal, rec, err = openJournal(r.cfg.Dir, id, r.store, r.log); err != nil {
		return err
	}
	r.snaps, r.bytes, r.body = rec.snaps, rec.bytes, rec.body
	if r.cfg.ID != 0 && r.cfg.ID != rec.head.ID {
		return fmt.Errorf("data directory %s belongs to member %d, not %d: give that id, or another directory",
			r.cfg.Dir, rec.head.ID, r.cfg.ID)
	}
	r.id = rec.head.ID
	if err := markFormat(r.cfg.Dir); err != nil {
		return err
	}
	start := snapMeta{conf: &raftpb.ConfState{Voters: rec.head.Voters}}
	if rec.body != nil {
		start = rec.body.meta
	}
	r.core, err = newCore(coreConfig{
		id: r.id, electionTicks: electionTicks, heartbeatTicks: heartbeatTicks,
		snap: start, state: rec.state, entries: rec.entries, logger: raftLogger{r.log},
	})
	if err != nil {
		return err
	}
	r.status.Store(&Status{ID: r.id, Term: r.core.term, Committed: r.core.committed, Applied: r.core.applied, Last: r.core.last})
	return nil
}

// Close gives back what Open took where Run is not going to be called. After Run it does nothing.
func (r *Replica) Close() error {
	if !r.started.CompareAndSwap(false, true) {
		return nil
	}
	close(r.done)
	close(r.events)
	return r.release()
}

// release closes the log and then lets others have the directory.
func (r *Replica) release() error {
	var errs []error
	if r.body != nil {
		errs = append(errs, r.body.Close())
	}
	if r.journal != nil {
		errs = append(errs, r.journal.close())
	}
	return errors.Join(append(errs, r.lock.Close())...)
}

// Run takes part in the cluster until ctx is done; then it closes the log and the events and returns nil. Any other end is an
// error, after which the process should start again and recover: after a failed fsync nobody knows what is on disk. It must be
// called once.
func (r *Replica) Run(ctx context.Context) (err error) {
	if !r.started.CompareAndSwap(false, true) {
		return fmt.Errorf("run: %w", ErrClosed)
	}
	s := &saver{
		journal: r.journal, log: r.log, reserve: r.reserve, every: r.checkEvery,
		in: make(chan batch), out: make(chan batch), room: make(chan error),
	}
	l := &loop{r: r, core: r.core, saver: s, bytes: r.bytes, snapshotAt: r.cfg.SnapshotBytes}
	saverCtx, stop := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() { failed <- s.run(saverCtx) }()

	defer func() {
		close(r.done)
		stop()
		if !l.saverEnded {
			err = errors.Join(err, <-failed)
		}
		err = errors.Join(err, r.release())
		close(r.events)
	}()
	return l.run(ctx, failed)
}

// Events are what the consumer must know, in log order. The channel is closed when Run ends. A slow consumer delays nobody
// but itself: the log goes on, within bounds (see Propose).
func (r *Replica) Events() <-chan Event { return r.events }

// Propose puts data into the log. It returns nil when this node, leading, has taken it: it is then committed and comes back as an
// event, unless leadership is lost (the new Role tells) or Run ends; what became of it is then known by reading
// the log. Proposals of one goroutine keep their order. Errors that match ErrNotLeader, ErrLogFull or ErrClosed mean that
// data is not in the log; with the error of ctx that is unknown.
//
// It blocks while 32 MiB of proposals are on their way to the events, and until Run has begun. So a consumer of the events that
// calls it itself must keep what it has not yet got back below that, or it waits for itself.
//
// data must not be changed afterwards.
func (r *Replica) Propose(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return errors.New("propose: an entry without data would not be delivered")
	}
	p := proposal{data: data, verdict: make(chan error, 1)}
	select {
	case r.proposals <- p:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return ErrClosed
	}
	select {
	case err := <-p.verdict:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return r.lateVerdict(p)
	}
}

// lateVerdict is the verdict of a proposal that was queued when Run ended.
func (r *Replica) lateVerdict(p proposal) error {
	select {
	case err := <-p.verdict:
		return err
	default:
		return ErrClosed
	}
}

// Status is what the replica is now, from any goroutine.
func (r *Replica) Status() Status { return *r.status.Load() }

// SaveSnapshot saves the state after the entry at index, which write writes out; index must have been delivered. It is called
// from another goroutine than Run's and the consumer's, and delays neither for as long as write takes. When it
// returns nil, the snapshot is durable, and the log before the snapshot before it is gone.
func (r *Replica) SaveSnapshot(index uint64, write func(io.Writer) error) error {
	type begun struct {
		meta snapMeta
		err  error
	}
	b, ok := await(r, func(l *loop, out chan<- begun) {
		meta, err := l.beginSnapshot(index)
		out <- begun{meta, err}
	})
	if !ok {
		return ErrClosed
	}
	if b.err != nil {
		return b.err
	}
	recorded, err := r.saveSnapshot(b.meta, write)
	await(r, func(l *loop, out chan<- struct{}) {
		l.endSnapshot(!recorded)
		out <- struct{}{}
	})
	return err
}

// saveSnapshot writes the file, has it recorded in the log, and removes what is no longer needed. It says whether it was recorded:
// a failure after that costs disk space only, and the next snapshot removes what is left.
func (r *Replica) saveSnapshot(meta snapMeta, write func(io.Writer) error) (recorded bool, err error) {
	if err := r.store.create(meta, write); err != nil {
		return false, err
	}
	kept, ok := await(r, func(l *loop, out chan<- []snapMeta) { l.recordSnapshot(meta, out) })
	if !ok {
		return false, ErrClosed
	}
	if len(kept) > 1 {
		if err := removeSegments(r.journal.walDir(), kept[1].index); err != nil {
			return true, err
		}
	}
	return true, r.store.keep(kept)
}

// await runs f in the loop and waits for what it sends, at once or later. It is not ok when Run ends first.
func await[T any](r *Replica, f func(*loop, chan<- T)) (T, bool) {
	out := make(chan T, 1)
	select {
	case r.calls <- func(l *loop) { f(l, out) }:
	case <-r.done:
		var none T
		return none, false
	}
	select {
	case v := <-out:
		return v, true
	case <-r.done:
		var none T
		return none, false
	}
}
