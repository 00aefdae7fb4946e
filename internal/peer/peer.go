package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
)

const (
	// Each side sends something at least every keepaliveEvery. The dialing side gives up after silenceMax, so a cut link is
	// detected well within two seconds; the other side only cleans up, and may take longer.
	keepaliveEvery    = 300 * time.Millisecond
	silenceMax        = 1500 * time.Millisecond
	inboundSilenceMax = 5 * time.Second // of an inbound stream

	updateEvery   = 500 * time.Millisecond // between comparisons of the members with the log
	updateTimeout = 5 * time.Second        // for one update of the log
)

// Replica is the part of *replica.Replica that the transport uses.
type Replica interface {
	ID() uint64
	Directory() string
	Members() replica.Members
	Status() replica.Status
	Receive(ctx context.Context, msgs ...*raftpb.Message) error
	ReceiveSnapshot(ctx context.Context, m *raftpb.Message, body io.Reader) error
	OpenSnapshot(m *raftpb.Message) (io.ReadCloser, error)
	ReportSnapshot(id uint64, ok bool)
	ReportUnreachable(id uint64)
	AddMember(ctx context.Context, m replica.Member) (replica.Member, error)
	UpdateMember(ctx context.Context, m replica.Member) error
}

// Config configures a transport.
type Config struct {
	// Name is the cluster's; members with another name for it are refused. Empty: any.
	Name string
	// Self is this node, with the address that it advertises. ID and Directory come from the attached replica.
	Self replica.Member
	// Join is what a new leader gives --join, for error messages. Empty: the address of this node.
	Join string
	// Version is the program's, for error messages. Level is the highest feature level that it reads.
	Version string
	Level   uint32
	// Logger defaults to one that drops everything.
	Logger *slog.Logger
	// Dial connects to another leader. Defaults to plain TCP.
	Dial Dialer
	// Certified returns the data directory for which a calling node has a certificate; empty: any. Defaults to any.
	Certified func(ctx context.Context) string
	// OnKey keeps the next key of the cluster. Nil: there is none.
	OnKey func(ctx context.Context, key []byte) error
	// Fresh reports whether this node's cluster is unused, so that nothing is lost when it is discarded. nil: it is not.
	Fresh func() bool
	// OnInvite makes this node leave its empty cluster and join the inviting one. It must not wait for that: the invitation is
	// answered when it returns.
	OnInvite func(InviteRequest) error
}

// Transport carries messages between this leader and the others. It is a replica.Transport.
type Transport struct {
	cfg         Config
	log         *slog.Logger
	incarnation string

	changed chan struct{} // room for one: links were added or removed
	broken  chan error    // room for one: why this node can no longer be a member
	closed  chan struct{} // closed when Run ends
	reports reports
	updates chan struct{} // room for one: a member has announced a new address or directory

	mu       sync.Mutex
	replica  Replica // nil until attached
	self     replica.Member
	members  members
	level    uint32 // of the cluster: see SetLevel
	needs    string
	links    map[uint64]*link
	sessions map[sessionKey]*session
	// refusals are the last reasons for which callers were refused, so that each is logged once. Bounded by refusalsMax.
	refusals map[string]string
	// wrongCluster are members at whose address another cluster answered. answered: a member has, so the addresses are right.
	wrongCluster map[uint64]bool
	answered     bool
	handlers     sync.WaitGroup // of calls; none is added once closed
}

// refusalsMax bounds Transport.refusals. A caller with more ids than that may be logged again.
const refusalsMax = 256

// New returns a transport. It carries nothing until a replica is attached and Run is called.
func New(cfg Config) *Transport {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Transport{
		cfg: cfg, log: cfg.Logger, incarnation: rand.Text(),
		changed: make(chan struct{}, 1), broken: make(chan error, 1), closed: make(chan struct{}), updates: make(chan struct{}, 1),
		reports: newReports(), self: cfg.Self, members: newMembers(), links: map[uint64]*link{}, sessions: map[sessionKey]*session{},
		refusals: map[string]string{}, wrongCluster: map[uint64]bool{},
	}
}

// Attach sets the replica that receives the messages. It must be called once, before Run.
func (t *Transport) Attach(r Replica) {
	members := r.Members()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.replica = r
	t.self.ID, t.self.Directory = r.ID(), r.Directory()
	if t.members.logged.Cluster == "" { // otherwise SetMembers was called already, with newer ones
		t.members.setMembers(members)
	}
	t.relink()
}

// Register registers the transport's service. The server must allow messages as large as the largest entry
// of the log.
func (t *Transport) Register(s grpc.ServiceRegistrar) { peerpb.RegisterPeerServer(s, service{t: t}) }

// Run maintains the links to the other members until ctx is done, and then returns nil. It returns a *RefusedError when the others
// refuse this node for good. It must be called once, while the replica runs. The server on which the transport is registered may
// stop before or after it.
func (t *Transport) Run(ctx context.Context) error {
	t.mu.Lock()
	r := t.replica
	t.mu.Unlock()
	if r == nil {
		return errors.New("run the leaders' transport: no replica is attached")
	}
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer func() {
		t.mu.Lock()
		close(t.closed)
		t.mu.Unlock()
		cancel()
		parts.Wait()
		t.handlers.Wait()
	}()
	parts.Go(func() { t.reports.run(ctx, r) })
	parts.Go(func() { t.publishUpdates(ctx, r) })

	running := map[*link]context.CancelFunc{}
	for {
		t.mu.Lock()
		wanted := map[*link]bool{}
		for _, l := range t.links {
			wanted[l] = true
		}
		t.mu.Unlock()
		for l := range wanted {
			if running[l] != nil {
				continue
			}
			linkCtx, stop := context.WithCancel(ctx)
			running[l] = stop
			parts.Go(func() { l.run(linkCtx, r) })
		}
		for l, stop := range running {
			if !wanted[l] {
				stop()
				delete(running, l)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-t.broken:
			return err
		case <-t.changed:
		}
	}
}

// SetMembers implements replica.Transport.
func (t *Transport) SetMembers(m replica.Members) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.members.logged
	t.members.setMembers(m)
	t.relink()
	for _, is := range m.List {
		if was, ok := before.Get(is.ID); ok && was.Address != is.Address && is.ID != t.self.ID {
			t.links[is.ID].redial()
		}
	}
	p := t.policy()
	for key, s := range t.sessions {
		if t.members.removed(key.id) {
			s.end(refusalError(p.wasRemoved(key.id)))
		} else if r := p.checkDirectory(key.id, s.address, s.directory); r != nil {
			s.end(refusalError(r))
		}
	}
}

// SetLevel has nodes refused that cannot read a feature level; needs is a version of the program that can. It is called whenever
// the cluster's level has risen.
func (t *Transport) SetLevel(level uint32, needs string) {
	refused := map[string]*peerpb.Refusal{}
	t.mu.Lock()
	t.level, t.needs = level, needs
	p := t.policy()
	for key, s := range t.sessions {
		if s.level < level {
			r := p.outdated(who(key.id, s.address), s.version, s.level)
			refused[s.directory] = r
			s.end(refusalError(r))
		}
	}
	t.mu.Unlock()
	for directory, r := range refused {
		t.logRefusal(directory, r)
	}
}

// Behind returns the members that are not connected, or whose program cannot read a feature level.
func (t *Transport) Behind(level uint32) []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var behind []uint64
	for _, m := range t.members.logged.List {
		s := t.sessions[sessionKey{m.ID, peerpb.Lane_LANE_QUICK}]
		if m.ID != t.self.ID && (s == nil || s.level < level) {
			behind = append(behind, m.ID)
		}
	}
	return behind
}

// relink creates a link for every other member, including those that have connected and that the log does not name yet, and removes
// the links of former members.
func (t *Transport) relink() {
	for _, m := range t.members.logged.List {
		t.link(m.ID)
	}
	for id := range t.links {
		if !t.members.known(id) || t.members.removed(id) || id == t.self.ID {
			delete(t.links, id)
			delete(t.wrongCluster, id)
		}
	}
	signal(t.changed)
}

// link returns the link to a member; nil for this node itself.
func (t *Transport) link(id uint64) *link {
	l := t.links[id]
	if l == nil && id != t.self.ID {
		l = newLink(t, id)
		t.links[id] = l
		signal(t.changed)
	}
	return l
}

// Send implements replica.Transport.
func (t *Transport) Send(msgs []*raftpb.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range msgs {
		id := m.GetTo()
		l := t.links[id]
		switch {
		case m.GetType() == raftpb.MsgSnap && l == nil:
			t.reports.add(id, report{snapshotLost: true})
		case m.GetType() == raftpb.MsgSnap:
			l.putSnapshot(m)
		case l == nil || !l.lane(m).queue.put(m):
			t.reports.add(id, report{unreachable: true})
		}
	}
}

// policy returns the policy for inbound calls. t.mu must be held, also while it is used.
func (t *Transport) policy() policy {
	p := policy{members: &t.members, self: t.self, name: t.cfg.Name, join: t.cfg.Join, version: t.cfg.Version, level: t.level, needs: t.needs}
	if t.replica != nil {
		p.applied = t.replica.Status().Applied
	}
	return p
}

// publishUpdates writes to the log, while this node leads, what members have announced: their current address, and the first data
// directory.
func (t *Transport) publishUpdates(ctx context.Context, r Replica) {
	ticker := time.NewTicker(updateEvery)
	defer ticker.Stop()
	failed := map[uint64]string{} // the last error logged of a member
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-t.updates:
		}
		if !r.Status().Leader {
			continue
		}
		t.mu.Lock()
		updates := t.members.updates(t.self)
		t.mu.Unlock()
		for _, m := range updates {
			updating, cancel := context.WithTimeout(ctx, updateTimeout)
			err := r.UpdateMember(updating, m)
			cancel()
			if err != nil { // tried again at the next tick, if this node leads then
				if text := err.Error(); failed[m.ID] != text && !errors.Is(err, replica.ErrNotLeader) && ctx.Err() == nil {
					failed[m.ID] = text
					t.log.WarnContext(ctx, "leader not updated in the log", "peer", m.ID, "address", m.Address, "error", err)
				}
				continue
			}
			delete(failed, m.ID)
			t.log.InfoContext(ctx, "leader updated in the log", "peer", m.ID, "address", m.Address)
		}
	}
}

// fail ends Run.
func (t *Transport) fail(err error) {
	select {
	case t.broken <- err:
	default: // it has a reason already
	}
}

// signal wakes the goroutine that waits on c, now or later.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
