package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
)

const (
	// Each side says something at least every pulseEvery; the one that dialed gives up after silenceMax without a word, so a
	// cut link is noticed well within two seconds. The other side has nothing to do about it but to tidy up, and so has time.
	pulseEvery = 300 * time.Millisecond
	silenceMax = 1500 * time.Millisecond
	guestsMax  = 5 * time.Second // silence after which the side that was dialed gives up

	newsEvery = 500 * time.Millisecond // between looks at what the log should say of the members
	newsMax   = 5 * time.Second        // for the log to take it
)

// Replica is what the transport needs of a member of the replicated log; *replica.Replica is one.
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

// Config sets a transport up.
type Config struct {
	// Name is the cluster's; members that call it by another name are refused. Empty: any.
	Name string
	// Self is this node. Address is where the others reach it. ID and Directory are taken from the replica once it is attached.
	Self replica.Member
	// Version is the program's, for messages to people.
	Version string
	// Logger defaults to one that drops everything.
	Logger *slog.Logger
	// Dial connects to host:port. Defaults to plain TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Fresh says whether this node's cluster was never used for anything, so that nothing is lost when it is given up. nil: it is not.
	Fresh func() bool
	// OnInvite has this node leave its empty cluster and join the one that asks. It must not wait for that: the answer to the
	// invitation goes out when it returns.
	OnInvite func(InviteRequest) error
}

// Transport carries messages between this leader and the others. It is a replica.Transport.
type Transport struct {
	cfg         Config
	log         *slog.Logger
	dial        dialFunc
	incarnation string

	changed chan struct{} // room for one: links came or went
	broken  chan error    // room for one: why this node cannot be a member any more
	closed  chan struct{} // closed when Run ends
	reports reports
	news    chan struct{} // room for one: a member has said something new of itself

	mu       sync.Mutex
	replica  Replica // nil until attached
	self     replica.Member
	book     book
	links    map[uint64]*link
	sessions map[sessionKey]*session
	// told is why a caller was refused last, so that each reason is logged once. Bounded by toldMax.
	told map[string]string
	// strangers are members at whose address another cluster answered; met: a member has answered, so addresses are right.
	strangers map[uint64]bool
	met       bool
	handlers  sync.WaitGroup // of calls; none is added once closed
}

// toldMax bounds Transport.told; who has that many ids under which to be refused may fill the log a little.
const toldMax = 256

// New returns a transport. It carries nothing until a replica is attached and Run is called, and remembers meanwhile who the
// members are.
func New(cfg Config) *Transport {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Transport{
		cfg: cfg, log: cfg.Logger, dial: withDefault(cfg.Dial), incarnation: rand.Text(),
		changed: make(chan struct{}, 1), broken: make(chan error, 1), closed: make(chan struct{}), news: make(chan struct{}, 1),
		reports: newReports(), self: cfg.Self, book: newBook(), links: map[uint64]*link{}, sessions: map[sessionKey]*session{},
		told: map[string]string{}, strangers: map[uint64]bool{},
	}
}

// Attach names the replica that the messages are for. It must be called once, before Run.
func (t *Transport) Attach(r Replica) {
	members := r.Members()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.replica = r
	t.self.ID, t.self.Directory = r.ID(), r.Directory()
	if t.book.members.Cluster == "" { // else SetMembers was faster, and knows better
		t.book.setMembers(members)
	}
	t.relink()
}

// Register offers the transport's service to the other leaders. The server must allow messages as large as the largest entry
// of the log.
func (t *Transport) Register(s grpc.ServiceRegistrar) { peerpb.RegisterPeerServer(s, service{t: t}) }

// Run keeps the links to the other members up until ctx is done, which gives nil. It returns a *RefusedError when the others
// will never have this node as it is. It must be called once, and the replica must run for as long. The server with which the
// transport is registered may end before or after it.
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
	parts.Go(func() { t.spreadNews(ctx, r) })

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
	before := t.book.members
	t.book.setMembers(m)
	t.relink()
	for _, is := range m.List {
		if was, ok := before.Get(is.ID); ok && was.Address != is.Address && is.ID != t.self.ID {
			t.links[is.ID].redial()
		}
	}
	d := t.door()
	for key, s := range t.sessions {
		if t.book.removed(key.id) {
			s.end(refusalError(d.wasRemoved(key.id)))
		} else if r := d.checkDirectory(key.id, s.address, s.directory); r != nil {
			s.end(refusalError(r))
		}
	}
}

// relink has a link for each member but this node, and for those that have said they are and that the log has yet to name.
func (t *Transport) relink() {
	for _, m := range t.book.members.List {
		t.link(m.ID)
	}
	for id := range t.links {
		if !t.book.known(id) || t.book.removed(id) || id == t.self.ID {
			delete(t.links, id)
			delete(t.strangers, id)
		}
	}
	signal(t.changed)
}

// link gives the link to a member; nil for this node itself.
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

// door is what callers are checked against. t.mu is held, also while it is used.
func (t *Transport) door() door {
	d := door{book: &t.book, self: t.self, name: t.cfg.Name, version: t.cfg.Version}
	if t.replica != nil {
		d.applied = t.replica.Status().Applied
	}
	return d
}

// spreadNews has the log learn, while this node leads, what members say of themselves: where they are reached now, and which data
// directory they came with first.
func (t *Transport) spreadNews(ctx context.Context, r Replica) {
	ticker := time.NewTicker(newsEvery)
	defer ticker.Stop()
	said := map[uint64]string{} // what was logged of a member that could not be updated
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-t.news:
		}
		if !r.Status().Leader {
			continue
		}
		t.mu.Lock()
		news := t.book.news(t.self)
		t.mu.Unlock()
		for _, m := range news {
			updating, cancel := context.WithTimeout(ctx, newsMax)
			err := r.UpdateMember(updating, m)
			cancel()
			if err != nil { // tried again at the next tick, if this node leads then
				if text := err.Error(); said[m.ID] != text && !errors.Is(err, replica.ErrNotLeader) && ctx.Err() == nil {
					said[m.ID] = text
					t.log.WarnContext(ctx, "what is new of a leader was not put into the log", "peer", m.ID, "address", m.Address, "error", err)
				}
				continue
			}
			delete(said, m.ID)
			t.log.InfoContext(ctx, "what is new of a leader was put into the log", "peer", m.ID, "address", m.Address)
		}
	}
}

// fail ends Run.
func (t *Transport) fail(err error) {
	select {
	case t.broken <- err:
	default: // it has been told why already
	}
}

// signal wakes who waits on c, now or later.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
