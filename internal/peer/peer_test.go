package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/bridgefour/bridgefour/internal/replica"
)

// TestMessagesArrive: a lane loses no message, and keeps their order, unless the link is lost, which is reported.
func TestMessagesArrive(t *testing.T) {
	nodes := cluster(t, 3)
	const count = 2000
	for first, arrived := uint64(1), false; !arrived; first += count {
		linked(t, nodes...)
		drain(nodes[0].replica.lost)
		go func() {
			for i := range uint64(count) {
				nodes[0].Send([]*raftpb.Message{
					message(raftpb.MsgApp, 1, 2, first+i, 'x'), message(raftpb.MsgHeartbeat, 1, 2, first+i), message(raftpb.MsgApp, 1, 3, first+i, 'x'),
				})
			}
		}()
		arrived = inOrder(t, nodes[0], nodes[1], first, count, raftpb.MsgApp, raftpb.MsgHeartbeat) &&
			inOrder(t, nodes[0], nodes[2], first, count, raftpb.MsgApp)
	}
}

// inOrder receives count messages of each kind, with indexes from first on, as sent by from to to. It reports whether all arrive: none of those sent
// later does once a link of from is lost.
func inOrder(t *testing.T, from, to *node, first, count uint64, kinds ...raftpb.MessageType) bool {
	t.Helper()
	next := make(map[raftpb.MessageType]uint64)
	for _, kind := range kinds {
		next[kind] = first
	}
	for slices.ContainsFunc(kinds, func(kind raftpb.MessageType) bool { return next[kind] < first+count }) {
		select {
		case m := <-to.replica.got:
			kind, index := m.GetType(), m.GetIndex()
			switch {
			case index < first: // sent before
				continue
			case index < next[kind] || m.GetFrom() != from.replica.id:
				t.Fatalf("message %v, want index %d: a lane keeps the order", m, next[kind])
			case index > next[kind]:
				receive(t, from.replica.lost, "the report of the lost link")
				return false
			}
			next[kind]++
		case <-from.replica.lost:
			return false
		case <-time.After(patience): //nolint:forbidigo // only when the test fails
			t.Fatalf("timed out waiting for a message: next are %v", next)
		}
	}
	return true
}

func TestVotesDoNotWaitBehindEntries(t *testing.T) {
	nodes := cluster(t, 2)
	linked(t, nodes...)
	nodes[1].replica.hold = make(chan struct{})
	defer close(nodes[1].replica.hold)
	for i := range uint64(1000) { // more than any window of the streams holds
		nodes[0].Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 2, i, make([]byte, 16<<10)...)})
	}
	untilHeard(t, nodes[0], nodes[1])
}

func TestFullQueueDropsAndReports(t *testing.T) {
	nodes := cluster(t, 2)
	linked(t, nodes...)
	a, b := nodes[0].replica, nodes[1].replica
	b.hold = make(chan struct{})
	data, sent := make([]byte, 1<<20), uint64(0)
	send := func() {
		nodes[0].Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 2, sent, data...)})
		sent++
	}
	for range 200 {
		send()
	}
	if got := receive(t, a.lost, "the report of the full queue"); got != 2 {
		t.Errorf("leader %d is reported unreachable, want 2", got)
	}
	nodes[0].mu.Lock()
	queue := &nodes[0].links[2].bulk.queue
	nodes[0].mu.Unlock()
	eventually(t, "the full queue", func() bool {
		send() // a link that is lost empties it
		queue.mu.Lock()
		defer queue.mu.Unlock()
		if queue.bytes > bulkBytesMax {
			t.Errorf("%d bytes wait, want at most %d", queue.bytes, bulkBytesMax)
		}
		return queue.bytes > bulkBytesMax/2
	})
	close(b.hold)
	// The queue drains, and then takes messages again. What was dropped is a gap, never a change of order.
	last, final := int64(-1), int64(1<<40)
	eventually(t, "the messages that were queued", func() bool {
		nodes[0].Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 2, uint64(final), 'x')}) // it may be lost, with the link
		for len(b.got) > 0 && last < final {
			m := <-b.got
			if len(m.GetEntries()) == 0 {
				continue
			}
			if int64(m.GetIndex()) <= last {
				t.Fatalf("message %d after %d", m.GetIndex(), last)
			}
			last = int64(m.GetIndex())
		}
		return last == final
	})
}

func TestCutLinkIsNoticedAndDialedAgain(t *testing.T) {
	nodes := cluster(t, 2)
	linked(t, nodes...)
	drain(nodes[0].replica.lost)
	lines := func() []string { return nodes[0].log.with("no link to a leader", "peer=2") }
	before := len(lines()) // of a link that was lost already, as when this process was stopped
	nodes[0].network.cut.Store(true)
	if got := receive(t, nodes[0].replica.lost, "the report of the cut link"); got != 2 {
		t.Errorf("leader %d is reported unreachable, want 2", got)
	}
	untilHeard(t, nodes[1], nodes[0]) // its own cables are fine
	// One lane of the link may be up again before the other has noticed.
	if got := lines(); len(got) == 0 || len(got) > before+2 {
		t.Errorf("log = %q, want one line about the lost link", got[min(before, len(got)):])
	}
	nodes[0].network.cut.Store(false)
	untilHeard(t, nodes[0], nodes[1])
}

// A process that was stopped accepts connections, for its kernel does, and says nothing.
func TestSilentLeaderIsNoticed(t *testing.T) {
	l := newListener(t)
	defer shut(t, l)
	members := replica.Members{Cluster: "c", List: []replica.Member{{ID: 1}, {ID: 2, Address: l.Addr().String()}}}
	n := startNode(t, newListener(t), newFakeReplica(1, members), nil)
	if got := receive(t, n.replica.lost, "the report of the silent leader"); got != 2 {
		t.Errorf("leader %d is reported unreachable, want 2", got)
	}
}

// A machine, or the network to it, may need longer to connect than a connection may be silent.
func TestSlowToConnect(t *testing.T) {
	slow := func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			delay := time.NewTimer(silenceMax + silenceMax/4)
			defer delay.Stop()
			select {
			case <-delay.C:
				return dial(ctx, address)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	linked(t, cluster(t, 2, slow)...)
}

func TestMovedLeaderIsFound(t *testing.T) {
	nodes := cluster(t, 3)
	linked(t, nodes...)
	nodes[0].replica.setStatus(replica.Status{Leader: true, LeaderID: 1})
	if err := nodes[1].stop(); err != nil {
		t.Fatalf("Run() = %v", err)
	}
	moved := startNode(t, newListener(t), newFakeReplica(2, nodes[0].replica.members), nil)
	linked(t, nodes[0], moved, nodes[2])
	got := receive(t, nodes[0].replica.updated, "the leader to write down the new address")
	if want := (replica.Member{ID: 2, Address: moved.address, Directory: "d2", Voter: true}); got != want {
		t.Errorf("UpdateMember(%+v), want %+v", got, want)
	}
}

// A member may be called by one that it has not read of in the log: all others were replaced while it was away.
func TestAnswersWhoKnowsMore(t *testing.T) {
	nodes := cluster(t, 2)
	linked(t, nodes...)
	members := nodes[0].replica.members
	members.List = append([]replica.Member(nil), members.List...)
	l := newListener(t)
	members.List = append(members.List, replica.Member{ID: 7, Address: l.Addr().String(), Directory: "d7", Voter: true})
	r := newFakeReplica(7, members)
	r.setStatus(replica.Status{Committed: 1000})
	newcomer := startNode(t, l, r, nil)
	untilHeard(t, newcomer, nodes[1])
	untilHeard(t, nodes[1], newcomer)
}

func TestSnapshotArrivesWhileVotesGoOn(t *testing.T) {
	nodes := cluster(t, 2)
	linked(t, nodes...)
	a, b := nodes[0].replica, nodes[1].replica
	body := make([]byte, 50<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	through := make(chan struct{})
	a.body = func() io.Reader { // its second half waits until votes have passed
		half := len(body) / 2
		return io.MultiReader(bytes.NewReader(body[:half]), waitFor(through), bytes.NewReader(body[half:]))
	}
	nodes[0].Send([]*raftpb.Message{message(raftpb.MsgSnap, 1, 2, 9)})
	untilHeard(t, nodes[0], nodes[1])
	untilHeard(t, nodes[1], nodes[0])
	close(through)
	if err := receive(t, b.taken, "the snapshot"); err != nil {
		t.Fatalf("the snapshot's body ends with %v", err)
	}
	if !bytes.Equal(b.snapshot.Bytes(), body) {
		t.Errorf("%d bytes arrive, and they are not those of the snapshot", b.snapshot.Len())
	}
	if !receive(t, a.sent, "the report of the snapshot") {
		t.Error("ReportSnapshot(false) of a snapshot that arrived")
	}
	if m := receive(t, b.got, "the snapshot's message"); m.GetType() == raftpb.MsgSnap && m.GetIndex() != 9 {
		t.Errorf("message of the snapshot = %v", m)
	}
}

type waitFor <-chan struct{}

func (w waitFor) Read([]byte) (int, error) {
	<-w
	return 0, io.EOF
}

func TestBrokenSnapshotIsReported(t *testing.T) {
	nodes := cluster(t, 2)
	linked(t, nodes...)
	a, b := nodes[0].replica, nodes[1].replica
	send := func() {
		t.Helper()
		nodes[0].Send([]*raftpb.Message{message(raftpb.MsgSnap, 1, 2, 9)})
		if receive(t, a.sent, "the report of the snapshot") {
			t.Error("ReportSnapshot(true) of a broken snapshot")
		}
	}
	send() // there is none

	a.mu.Lock()
	a.body = func() io.Reader {
		return io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), iotest.ErrReader(errors.New("input/output error")))
	}
	a.mu.Unlock()
	send()
	if err := receive(t, b.taken, "the end of the snapshot"); err == nil || !strings.Contains(err.Error(), "interrupted after") {
		t.Errorf("a snapshot that its sender cannot read ends with %v at the receiver, want an error", err)
	}

	a.mu.Lock()
	a.body = func() io.Reader { return bytes.NewReader(make([]byte, 1<<20)) }
	a.mu.Unlock()
	b.mu.Lock()
	b.refuse = errors.New("no space left on device")
	b.mu.Unlock()
	send()
	if got := nodes[0].log.with("no space left on device"); len(got) != 1 {
		t.Errorf("the sender logs %q, want why the snapshot was not taken", got)
	}

	through := make(chan struct{})
	defer close(through)
	a.mu.Lock()
	a.body = func() io.Reader { return io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), waitFor(through)) }
	a.mu.Unlock()
	b.mu.Lock()
	b.refuse = nil
	b.mu.Unlock()
	nodes[0].Send([]*raftpb.Message{message(raftpb.MsgSnap, 1, 2, 9)})
	if err := nodes[1].stop(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestRefusedForGood(t *testing.T) {
	tests := []struct {
		name   string
		change func(*fakeReplica)     // the refused node
		others func(*replica.Members) // what the refusing one knows
		says   []string
		goesOn bool // it may hope
	}{
		{
			name: "removed", others: func(m *replica.Members) { m.List, m.Removed = m.List[:1], []uint64{2} },
			says: []string{"leader 2 was removed"},
		},
		{
			name: "other directory", change: func(r *fakeReplica) { r.directory = "empty" },
			says: []string{"leader 2 was here before", "leaders remove 2"},
		},
		{
			name: "recovered", others: func(m *replica.Members) { m.Cluster, m.Former, m.List = "new", []string{"c"}, m.List[:1] },
			says: []string{"was recovered as cluster", "new"},
		},
		{
			name: "recovered behind our back", others: func(m *replica.Members) { m.Cluster, m.Former, m.List = "new", []string{"c"}, m.List[:1] },
			change: func(r *fakeReplica) { r.setStatus(replica.Status{LeaderID: 3}) },
			says:   []string{"was recovered as cluster", "new"}, goesOn: true,
		},
		{
			name: "other cluster", others: func(m *replica.Members) { m.Cluster, m.List = "other", m.List[:1] },
			says: []string{"belongs to cluster", "(c)", "(other)"},
		},
		{
			name: "unknown", others: func(m *replica.Members) { m.List = m.List[:1] },
			says: []string{"has no leader 2"}, goesOn: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l1, l2 := newListener(t), newListener(t)
			list := func() []replica.Member {
				return []replica.Member{
					{ID: 1, Address: l1.Addr().String(), Directory: "d1", Voter: true},
					{ID: 2, Address: l2.Addr().String(), Directory: "d2", Voter: true},
				}
			}
			r, theirs := newFakeReplica(2, replica.Members{Cluster: "c", List: list()}), replica.Members{Cluster: "c", List: list()}
			if tt.change != nil {
				tt.change(r)
			}
			if tt.others != nil {
				tt.others(&theirs)
			}
			one := startNode(t, l1, newFakeReplica(1, theirs), nil)
			two := startNode(t, l2, r, nil)
			if tt.goesOn {
				receive(t, r.lost, "the first refusal")
			} else {
				err := two.ended()
				refused, ok := errors.AsType[*RefusedError](err)
				if !ok || refused.Address != one.address {
					t.Fatalf("Run() = %v, want a *RefusedError of %s", err, one.address)
				}
				for _, s := range tt.says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("Run() = %v, want it to say %q", err, s)
					}
				}
			}
			for _, n := range []*node{one, two} {
				eventually(t, "the reason in the log", func() bool { return len(n.log.with(append(tt.says, "refuse")...)) > 0 })
				if got := n.log.with(append(tt.says, "refuse")...); len(got) != 1 {
					t.Errorf("leader %d logs the reason in %d lines, want 1: %q", n.replica.id, len(got), n.log.with())
				}
			}
			if len(r.got) > 0 || len(one.replica.got) > 0 {
				t.Error("a message of a refused node was taken")
			}
		})
	}
}

// One member whose address was taken over by another cluster is no reason to leave one's own.
func TestOneStrangerEndsNothing(t *testing.T) {
	nodes := cluster(t, 2)
	linked(t, nodes...)
	l := newListener(t)
	foreign := startNode(t, l, newFakeReplica(3, replica.Members{Cluster: "other"}), nil)
	members := nodes[0].replica.members
	members.List = append([]replica.Member(nil), members.List...)
	members.List = append(members.List, replica.Member{ID: 3, Address: foreign.address, Voter: true})
	nodes[0].SetMembers(members)
	for lost := uint64(0); lost != 3; { // 2 may be before it
		lost = receive(t, nodes[0].replica.lost, "the foreign's refusal")
	}
	linked(t, nodes...)
}

// A refused node retries ever more slowly.
func TestRefusalIsNoHotLoop(t *testing.T) {
	nodes := cluster(t, 1)
	l := newListener(t)
	r := newFakeReplica(5, replica.Members{Cluster: "c", List: []replica.Member{
		{ID: 1, Address: nodes[0].address, Directory: "d1", Voter: true}, {ID: 5, Address: l.Addr().String(), Voter: true},
	}})
	r.lost = make(chan uint64)
	n := startNode(t, l, r, nil)
	lost := make(chan int)
	go func() {
		defer close(lost)
		for range 4 {
			lost <- int(receive(t, n.replica.lost, "a refusal"))
		}
	}()
	for range lost {
		if got := n.network.dialed.Load(); got > 16 {
			t.Fatalf("%d dials after few refusals", got)
		}
	}
	for side, log := range map[string]*logNotes{"refused": n.log, "refusing": nodes[0].log} {
		eventually(t, "the reason in the log", func() bool { return len(log.with("no leader 5")) > 0 })
		if got := log.with("no leader 5"); len(got) != 1 {
			t.Errorf("the %s side logs %q, want one line", side, got)
		}
	}
}

func TestRemovedMemberIsShownOut(t *testing.T) {
	nodes := cluster(t, 3)
	linked(t, nodes...)
	members := nodes[0].replica.members
	members.List, members.Removed = append([]replica.Member(nil), members.List[:2]...), []uint64{3}
	for _, n := range nodes[:2] {
		n.SetMembers(members)
	}
	if _, ok := errors.AsType[*RefusedError](nodes[2].ended()); !ok {
		t.Errorf("Run() = %v, want a *RefusedError", nodes[2].ended())
	}
	linked(t, nodes[:2]...)
}

// Two processes over copies of one data directory are told apart.
func TestTwinIsRefused(t *testing.T) {
	nodes := cluster(t, 2)
	linked(t, nodes...)
	r := newFakeReplica(2, nodes[1].replica.members)
	twin := startNode(t, newListener(t), r, nil)
	receive(t, r.lost, "the refusal")
	eventually(t, "the reason in the log", func() bool { return len(twin.log.with("another process is connected as leader 2")) == 1 })
	untilHeard(t, nodes[1], nodes[0])
}

// A transport whose replica is not there yet says so.
func TestTransportWithoutReplica(t *testing.T) {
	early := New(Config{Name: "test"})
	if err := early.Run(t.Context()); err == nil {
		t.Error("Run() without a replica = nil")
	}
	service := service{t: early}
	if _, err := service.Join(t.Context(), nil); !errors.Is(err, errStarting) {
		t.Errorf("Join() of a leader that starts = %v, want %v", err, errStarting)
	}
}

func drain[T any](c <-chan T) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}
