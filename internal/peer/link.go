package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	quickBytesMax = 1 << 20  // of queued votes and heartbeats for one member
	bulkBytesMax  = 32 << 20 // of the rest
	batchBytesMax = 1 << 20  // after which a batch is closed

	backOffMin  = 50 * time.Millisecond
	backOffMax  = time.Second      // between dials of a member that does not answer
	refusedMax  = 30 * time.Second // between dials of a member that has refused
	steadyAfter = 2 * time.Second  // a connection that lasted so long resets the back-off
	// A member that does not say welcome within silenceMax gets twice the time at the next dial, up to setupMax: a machine may be so slow.
	setupMax = 4 * silenceMax
)

// Dialer connects to host:port. Nil connects by TCP.
type Dialer func(ctx context.Context, address string) (net.Conn, error)

func (dial Dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	if dial != nil {
		return dial(ctx, address)
	}
	return transport.Dial(ctx, address)
}

// Open returns a connection to the leader at address. It is dialed when it is first used.
func (dial Dialer) Open(address string) (*grpc.ClientConn, error) {
	return wire.Connect(address, dial.dial)
}

// link is the outgoing side to one other member.
type link struct {
	t         *Transport
	id        uint64
	quick     *lane
	bulk      *lane
	snapshots chan *raftpb.Message // room for one, the newest
	logged    []string             // what was logged of it since it was linked; guarded by t.mu
}

func newLink(t *Transport, id uint64) *link {
	l := &link{t: t, id: id, snapshots: make(chan *raftpb.Message, 1)}
	l.quick = &lane{link: l, kind: peerpb.Lane_LANE_QUICK, queue: newQueue(quickBytesMax), again: make(chan struct{}, 1)}
	l.bulk = &lane{link: l, kind: peerpb.Lane_LANE_BULK, queue: newQueue(bulkBytesMax), again: make(chan struct{}, 1)}
	return l
}

// logLinked is the entry of link.logged for a link that is up: both lanes are.
const logLinked = "linked"

// loggedMax bounds link.logged: some errors contain a port, which differs each time.
const loggedMax = 8

// isNew reports whether why the link is down was not logged since it was up. Logging itself is done without t.mu, which the replica's loop may
// wait for.
func (l *link) isNew(why string) bool {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if len(l.logged) == loggedMax || slices.Contains(l.logged, why) {
		return false
	}
	l.logged = append(l.logged, why)
	return true
}

// lane returns the lane that carries m.
func (l *link) lane(m *raftpb.Message) *lane {
	switch m.GetType() { //nolint:exhaustive // the rest may wait
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgTimeoutNow, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		return l.quick
	default:
		return l.bulk
	}
}

// redial ends the back-off of the lanes: the member may have a new address.
func (l *link) redial() {
	signal(l.quick.again)
	signal(l.bulk.again)
}

// run sends to the member until ctx is done.
func (l *link) run(ctx context.Context, r Replica) {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { l.quick.run(ctx) })
	parts.Go(func() { l.bulk.run(ctx) })
	parts.Go(func() { l.sendSnapshots(ctx, r) })
}

// lane is one of the two streams of a link.
type lane struct {
	link  *link
	kind  peerpb.Lane
	queue queue
	again chan struct{} // room for one: dial now
	up    bool          // guarded by t.mu
}

// run connects and sends, and reconnects, until ctx is done.
func (l *lane) run(ctx context.Context) {
	t, id := l.link.t, l.link.id
	var wait backOff
	setup := silenceMax
	for try := 0; ; try++ {
		t.mu.Lock()
		addresses := t.members.addresses(id)
		t.mu.Unlock()
		limit := backOffMax
		if len(addresses) > 0 {
			address := addresses[try%len(addresses)]
			begun := time.Now()
			welcome, err := l.connect(ctx, address, setup)
			if ctx.Err() != nil {
				return
			}
			switch {
			case welcome:
				setup = silenceMax
			case errors.Is(err, errSilent):
				setup = min(2*setup, setupMax)
			}
			if time.Since(begun) > steadyAfter {
				wait.reset()
				try = -1 // the likeliest address first
			}
			if l.lost(address, err) {
				limit = refusedMax
			}
		}
		if woken := wait.wait(ctx, limit, l.again); woken {
			wait.reset()
			try = -1
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// lost handles the end of a connection or a failed dial, and reports whether the member has refused this node.
func (l *lane) lost(address string, err error) (refused bool) {
	t := l.link.t
	l.queue.clear() // raft has newer ones by the time they could be sent
	defer t.reports.add(l.link.id, report{unreachable: true})
	t.mu.Lock()
	l.up = false
	t.mu.Unlock()
	if rejected, ok := errors.AsType[*rejectedError](err); ok {
		t.logRefusal(rejected.directory, rejected.refusal)
		return true
	}
	if refusal := refusalOf(err); refusal != nil {
		t.refused(l.link, address, refusal)
		return true
	}
	if wire.IsRevoked(err) {
		t.fail(&RefusedError{Address: address, Reason: plain(err)})
		return true
	}
	if why := plain(err); l.link.isNew(why) {
		t.log.Warn("no link to a leader", "peer", l.link.id, "address", address, "error", why)
	}
	return false
}

// linked handles a welcome.
func (l *lane) linked(address string) {
	t := l.link.t
	t.mu.Lock()
	l.up = true
	both := l.link.quick.up && l.link.bulk.up
	again := len(l.link.logged) == 1 && l.link.logged[0] == logLinked
	if both {
		l.link.logged = []string{logLinked}
	}
	t.mu.Unlock()
	if both && !again {
		t.log.Info("linked to a leader", "peer", l.link.id, "address", address)
	}
}

// connect sends what is queued to address, until there is no welcome within setup, the connection is lost, or ctx is done. The error is
// not nil.
func (l *lane) connect(ctx context.Context, address string, setup time.Duration) (welcome bool, err error) {
	t, id := l.link.t, l.link.id
	raft := func(ctx context.Context, c peerpb.PeerClient) (outgoing[peerpb.Batch], error) {
		return c.Raft(ctx)
	}
	err = openStream(ctx, t, id, address, setup, silenceMax, raft, &peerpb.Batch{Handshake: t.handshake(id, l.kind)},
		func(ctx context.Context, stream outgoing[peerpb.Batch]) error {
			welcome = true
			l.linked(address)
			return l.pump(ctx, stream)
		})
	return welcome, err
}

// pump sends what is queued until ctx, which ends with the stream, is done.
func (l *lane) pump(ctx context.Context, stream outgoing[peerpb.Batch]) error {
	pulse := time.NewTicker(keepaliveEvery)
	defer pulse.Stop()
	for {
		b := &peerpb.Batch{}
		for _, m := range l.queue.pop(batchBytesMax) {
			raw, err := proto.Marshal(m)
			if err != nil {
				return fmt.Errorf("encode a message for leader %d: %w", l.link.id, err)
			}
			b.Messages = append(b.Messages, raw)
		}
		if len(b.GetMessages()) == 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-l.queue.some:
				continue
			case <-pulse.C:
			}
		}
		if err := stream.Send(b); err != nil {
			<-ctx.Done() // the receiving side gets the reason
			return context.Cause(ctx)
		}
	}
}
