package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// Why a request was refused; errors match these.
var (
	// ErrNotLeader means that this node does not lead, not yet or no longer. What was proposed is not in the log.
	ErrNotLeader = core.ErrNotLeader
	// ErrClosed means that Run has ended. What was proposed is not in the log.
	ErrClosed = errors.New("the replicated log is closed")
	// ErrRemoved means that this member was removed from its cluster for good.
	ErrRemoved = core.ErrRemoved
	// ErrQuorum means that the remaining members would have no quorum.
	ErrQuorum = core.ErrQuorum
)

// The types of the core that callers see.
type (
	// Member is one of those that keep the log.
	Member = core.Member
	// Members are the members as of some entry of the log.
	Members = core.Members
	// Entry is one proposal that is committed.
	Entry = core.Entry
	// Role is what a node is in a term.
	Role = core.Role
	// Status is the state of the replica at one moment.
	Status = core.Status
	// PeerStatus is what a leader knows of another member.
	PeerStatus = core.PeerStatus
)

// Limits of what other members send.
const (
	MembersMax        = core.MembersMax
	MessageEntriesMax = core.MessageEntriesMax
)

const (
	defaultTick          = 10 * time.Millisecond
	defaultSnapshotBytes = 64 << 20
	// Ticks of an election and of a heartbeat. A lone voter campaigns at once.
	electionTicks  = 50
	heartbeatTicks = 5

	eventsQueued    = 16
	proposalsQueued = 64
	inboxQueued     = 64
)

// Config configures a replica.
type Config struct {
	// Dir is the data directory, created if missing. One process at a time can use it.
	Dir string
	// ID is the member's, which never changes for a data directory. Defaults to the one in Dir, or 1; with Peers or Join it is required
	// for a new directory.
	ID uint64
	// Address is this member's, as other members dial it: host:port.
	Address string
	// Cluster is the id of a new cluster, or of the one joined. Defaults to the one in Dir; for a new cluster to a random one, or with
	// Peers to a hash of them.
	Cluster string
	// Directory is the name of a new Dir (see Member). Defaults to a random one.
	Directory string
	// Peers are the first members of a new cluster, including this one, the same on each of them. None: this node alone. With Join, the
	// members as they were at that time. An existing Dir takes precedence.
	Peers []Member
	// Join: a new Dir becomes a member of the running cluster Cluster, which has added it with ID and Directory.
	Join bool
	// Transport carries messages to other members; nil only if there never are any.
	Transport Transport
	// Tick is the unit of election and heartbeat times. Defaults to 10 ms.
	Tick time.Duration
	// Logger defaults to one that drops everything.
	Logger *slog.Logger
	// SnapshotBytes is the growth of the log after which a snapshot is requested. Defaults to 64 MiB.
	SnapshotBytes int64
}

// Transport carries messages to other members. Its methods are called by one goroutine and must not block.
type Transport interface {
	// Send sends messages to their members, or drops them. The outcome of a MsgSnap must be reported (Replica.ReportSnapshot); its body is
	// that of Replica.OpenSnapshot. Messages must not be changed.
	Send(messages []*raftpb.Message)
	// SetMembers sets the members: at the start and after each change, before the first message to a new one.
	SetMembers(m Members)
}

// Event is one event for the consumer. Exactly one field is set, but for SnapshotIndex, which goes with Snapshot.
type Event struct {
	// Snapshot is the state to start from, verified: the first event, if there is one; later, one of the leader, which replaces the
	// entries up to it. The consumer closes it.
	Snapshot      io.ReadCloser
	SnapshotIndex uint64
	// Entries are committed and on this node's disk, and come in order, without gaps or duplicates (missing indexes are raft's own
	// entries). Data must not be changed.
	Entries []Entry
	// Role: this node's role changed. Leader is set once every entry of earlier terms has been delivered.
	Role *Role
	// WantSnapshot: the log has grown, or a member needs one: call SaveSnapshot soon. Not repeated while one is being saved.
	WantSnapshot bool
	// LogFull: there is no room for the log, so nothing can be proposed until LogRoom; matches ErrLogFull and names the way out. Earlier
	// proposals are not affected.
	LogFull error
	// LogRoom: there is room for the log again.
	LogRoom bool
}

// Replica is one member of the replicated log.
type Replica struct {
	cfg     Config
	id      uint64
	head    journalHead
	log     *slog.Logger
	lock    *os.File
	store   snapStore
	journal *journal
	core    *core.Core    // the loop's while Run runs
	body    *openSnapshot // of the newest snapshot, until Run delivers it

	// Of the saver; set by tests.
	reserve    int64
	checkEvery time.Duration
	beforeSave func() // called before each save; nil: nothing

	events    chan Event
	proposals chan proposal
	inbox     chan received
	requests  chan request
	refs      atomic.Uint64
	receiving chan struct{} // room for one: held while a snapshot is received
	done      chan struct{} // closed when Run ends
	started   atomic.Bool
	status    atomic.Pointer[Status]
	members   atomic.Pointer[Members]
	usage     atomic.Pointer[Usage] // nil until the saver runs
}

type proposal struct {
	data    []byte
	verdict chan error // room for one
}

// received is messages of a peer.
type received struct {
	messages []*raftpb.Message
	verdict  chan error // room for one
}

// Open recovers the log in cfg.Dir, or begins one as cfg says: of a cluster of this node alone, of a cluster of several, or of a new
// member. The caller must call Run or Close.
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
		inbox:     make(chan received, inboxQueued),
		requests:  make(chan request, proposalsQueued),
		receiving: make(chan struct{}, 1),
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
	var rec *recovered
	var err error
	if r.journal, rec, err = openJournal(r.cfg, r.store); err != nil {
		return err
	}
	r.head, r.body = rec.head, rec.body
	if err := r.cfg.fits(r.head); err != nil {
		return err
	}
	r.id = r.head.ID
	if err := markFormat(r.cfg.Dir); err != nil {
		return err
	}
	cfg := core.Config{
		ID: r.id, Address: r.cfg.Address, Directory: r.head.Directory,
		Tick: r.cfg.Tick, ElectionTicks: electionTicks, HeartbeatTicks: heartbeatTicks, Logger: raftLogger{r.log},
		Start: rec.start, Snapshots: rec.snaps, Overruled: r.head.Overruled, State: rec.state, Entries: rec.entries,
		LogBytes: rec.bytes, SnapshotBytes: r.cfg.SnapshotBytes,
	}
	_, _ = rand.Read(cfg.Nonce[:]) // never fails
	if r.core, err = core.New(cfg); err != nil {
		return err
	}
	r.status.Store(new(r.core.Status()))
	r.setMembers(r.core.Members())
	return nil
}

// setMembers publishes the members. A new member without a log has only those of its configuration.
func (r *Replica) setMembers(m *Members) *Members {
	if len(m.List) == 0 {
		m = &Members{Cluster: m.Cluster, List: r.head.Others}
	}
	r.members.Store(m)
	return m
}

// Close releases what Open has acquired, if Run is not going to be called. After Run it does nothing.
func (r *Replica) Close() error {
	if !r.started.CompareAndSwap(false, true) {
		return nil
	}
	close(r.done)
	close(r.events)
	return r.release()
}

// release closes the log and then unlocks the directory.
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
// error: ErrRemoved if this member was removed, otherwise one after which the process should restart and recover, because the state of
// the disk is unknown after a failed fsync. It must be called once.
func (r *Replica) Run(ctx context.Context) (err error) {
	if !r.started.CompareAndSwap(false, true) {
		return fmt.Errorf("run: %w", ErrClosed)
	}
	s := &saver{
		journal: r.journal, store: r.store, log: r.log, reserve: r.reserve, every: r.checkEvery, before: r.beforeSave, usage: &r.usage,
		in: make(chan core.Batch, 1), out: make(chan struct{}), room: make(chan error),
	}
	l := newLoop(r, s)
	saverCtx, stop := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() { failed <- s.run(saverCtx) }()

	defer func() {
		close(r.done)
		stop()
		if !l.saverEnded {
			err = errors.Join(err, <-failed)
		}
		err = errors.Join(err, l.close(), r.release())
		close(r.events)
	}()
	return l.run(ctx, failed)
}

// EntryBytesMax bounds an entry: a message to another member can hold it.
const EntryBytesMax = core.InFlightBytesMax

// ErrEntryTooLarge means that an entry is above EntryBytesMax, and not in the log.
var ErrEntryTooLarge = fmt.Errorf("a log entry has at most %d bytes", EntryBytesMax)

// Events are the events for the consumer, in log order. The channel is closed when Run ends. A slow consumer does not delay the log, within
// bounds (see Propose).
func (r *Replica) Events() <-chan Event { return r.events }

// Propose appends data to the log. It returns nil once this node, leading, has accepted it: data is then committed and delivered as an
// event, unless leadership is lost (see Event.Role) or Run ends; then only the log tells the outcome. Proposals of one goroutine keep
// their order. ErrNotLeader, ErrLogFull and ErrClosed mean that data is not in the log; with the error of ctx that is unknown.
//
// It blocks while 32 MiB of proposals are not delivered, and until Run has begun. So a consumer of the events that calls it must
// keep its own undelivered proposals below that bound. An entry above it is refused (ErrEntryTooLarge).
//
// data must not be changed afterwards.
func (r *Replica) Propose(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return errors.New("propose: empty entries are not delivered")
	}
	if len(data) > EntryBytesMax {
		return fmt.Errorf("propose: %w: it has %d bytes", ErrEntryTooLarge, len(data))
	}
	p := proposal{data: data, verdict: make(chan error, 1)}
	if err := toLoop(ctx, r, r.proposals, p); err != nil {
		return err
	}
	verdict, err := fromLoop(ctx, r, p.verdict)
	if err != nil {
		return err
	}
	return verdict
}

// ID returns this member's id.
func (r *Replica) ID() uint64 { return r.id }

// Directory returns the name of the data directory: see Member.
func (r *Replica) Directory() string { return r.head.Directory }

// Members returns the members as of the newest entry that is committed and known here. They must not be changed.
func (r *Replica) Members() Members { return *r.members.Load() }

// Status returns the present status. It may be called by any goroutine.
func (r *Replica) Status() Status {
	s := *r.status.Load()
	if s.Role == core.RoleLeader {
		s.Heard = time.Now()
	}
	return s
}

// Usage returns the space of the log as it was a moment ago. It may be called by any goroutine, and does not touch the disk.
func (r *Replica) Usage() Usage {
	if u := r.usage.Load(); u != nil {
		return *u
	}
	return Usage{}
}

// request is an input of another goroutine.
type request struct {
	input  core.Input
	ref    core.Ref
	answer func(core.Answer) // called by the loop, which it must not block; nil: there is no answer

	body    *openSnapshot // of a received MsgSnap; nil: none
	outcome chan outcome  // of a received MsgSnap; room for one
}

// outcome is what became of a received MsgSnap.
type outcome struct {
	accepted bool // the snapshot is going to be recorded, and its body belongs to the loop
	err      error
}

func (r *Replica) newRef() core.Ref { return core.Ref(r.refs.Add(1)) }

// toLoop sends v to the loop.
func toLoop[T any](ctx context.Context, r *Replica, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return ErrClosed
	}
}

// fromLoop receives from the loop, also what it has sent just before Run ended.
func fromLoop[T any](ctx context.Context, r *Replica, from <-chan T) (v T, err error) {
	select {
	case v = <-from:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	case <-r.done:
	}
	select {
	case v = <-from:
		return v, nil
	default:
		return v, ErrClosed
	}
}

// queue queues a request for the loop.
func (r *Replica) queue(ctx context.Context, q request) error { return toLoop(ctx, r, r.requests, q) }

// await steps the input for a new ref in the loop and waits for its answer. If ctx ends first, the outcome is unknown.
func (r *Replica) await(ctx context.Context, input func(core.Ref) core.Input) (core.Answer, error) {
	ref, out := r.newRef(), make(chan core.Answer, 1)
	if err := r.queue(ctx, request{input: input(ref), ref: ref, answer: func(a core.Answer) { out <- a }}); err != nil {
		return core.Answer{}, err
	}
	a, err := fromLoop(ctx, r, out)
	if err != nil {
		_ = r.queue(context.WithoutCancel(ctx), request{input: core.Cancel{Ref: ref}}) // at the end of Run nothing is left to cancel
		return core.Answer{}, err
	}
	return a, a.Err
}
