package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// fleetTick makes elections take 200 ms.
const fleetTick = 4 * time.Millisecond

// fleet is several replicas with real files in one process, and a network between them that can be cut.
type fleet struct {
	t testing.TB

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	mates   map[uint64]*mate
	cut     map[uint64]bool
	next    int // number to propose

	carriers sync.WaitGroup
}

// mate is one replica of a fleet; its state is all numbers that were committed.
type mate struct {
	*Replica
	f      *fleet
	cfg    Config
	cancel context.CancelFunc
	ended  chan error
	queues map[uint64]chan []*raftpb.Message // of messages, by receiver
	stop   chan struct{}

	// Guarded by f.mu.
	numbers  []int
	index    uint64
	role     Role
	installs int
	members  Members
}

func newFleet(tb testing.TB) *fleet {
	tb.Helper()
	tb.TempDir() // made first, so that it is removed last
	f := &fleet{t: tb, changed: make(chan struct{}), mates: map[uint64]*mate{}, cut: map[uint64]bool{}}
	tb.Cleanup(func() {
		for _, m := range f.mates {
			if err := m.end(); err != nil && !errors.Is(err, ErrRemoved) {
				tb.Errorf("Run() of member %d = %v", m.ID(), err)
			}
		}
		f.carriers.Wait()
	})
	return f
}

// newTrio starts the three members of a new cluster.
func newTrio(tb testing.TB) *fleet {
	tb.Helper()
	f := newFleet(tb)
	var peers []Member
	for id := range uint64(3) {
		peers = append(peers, Member{ID: id + 1, Address: fmt.Sprint("a", id+1)})
	}
	for _, p := range peers {
		f.start(Config{Dir: tb.TempDir(), ID: p.ID, Address: p.Address, Peers: peers})
	}
	return f
}

func (f *fleet) start(cfg Config) *mate {
	f.t.Helper()
	m := f.open(cfg)
	m.run()
	return m
}

func (f *fleet) open(cfg Config) *mate {
	f.t.Helper()
	m := &mate{f: f, cfg: cfg, ended: make(chan error, 1), queues: map[uint64]chan []*raftpb.Message{}, stop: make(chan struct{})}
	if cfg.Tick == 0 {
		cfg.Tick = fleetTick
	}
	cfg.Transport = m
	r, err := Open(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	m.Replica = r
	f.change(func() { f.mates[r.ID()] = m })
	return m
}

func (m *mate) run() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	consumed := make(chan struct{})
	go func() {
		defer close(consumed)
		var saves sync.WaitGroup
		for e := range m.Events() {
			m.handle(e, &saves)
		}
		saves.Wait()
	}()
	go func() {
		err := m.Run(ctx)
		<-consumed
		close(m.stop)
		m.f.change(func() { m.role = Role{} })
		m.ended <- err
	}()
}

// end stops the replica, without a word to the others, and gives what Run returned.
func (m *mate) end() error {
	m.cancel()
	err := <-m.ended
	m.ended <- err
	return err
}

// restart starts it again on the same directory.
func (f *fleet) restart(id uint64) *mate {
	f.t.Helper()
	m := f.mates[id]
	if err := m.end(); err != nil {
		f.t.Fatalf("Run() of member %d = %v", id, err)
	}
	return f.start(Config{Dir: m.cfg.Dir, Address: m.cfg.Address, SnapshotBytes: m.cfg.SnapshotBytes})
}

func (f *fleet) change(what func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what()
	close(f.changed)
	f.changed = make(chan struct{})
}

// until waits until cond, called with the lock held, holds.
func (f *fleet) until(what string, cond func() bool) {
	f.t.Helper()
	patience, cancel := context.WithTimeout(context.Background(), time.Minute) // so that a failure says what was waited for
	defer cancel()
	for {
		f.mu.Lock()
		ok, changed := cond(), f.changed
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-patience.Done():
			for id, m := range f.mates {
				f.t.Logf("member %d: %+v, %d numbers, %+v", id, m.Status(), len(m.numbers), m.Members())
			}
			f.t.Fatalf("never: %s", what)
		}
	}
}

func (m *mate) handle(e Event, saves *sync.WaitGroup) {
	var body []byte
	var err error
	if e.Snapshot != nil {
		body, err = io.ReadAll(e.Snapshot)
		err = errors.Join(err, e.Snapshot.Close())
	}
	m.f.change(func() {
		switch {
		case err != nil:
			m.f.t.Errorf("read snapshot: %v", err)
		case e.Snapshot != nil:
			m.numbers, m.index = m.numbers[:0], e.SnapshotIndex
			for ; len(body) >= 8; body = body[8:] {
				m.numbers = append(m.numbers, int(binary.LittleEndian.Uint64(body)))
			}
			m.installs++
		case e.Role != nil:
			m.role = *e.Role
		case e.WantSnapshot:
			index, numbers := m.index, slices.Clone(m.numbers)
			saves.Go(func() { m.save(index, numbers) })
		}
		for _, entry := range e.Entries {
			if entry.Index <= m.index {
				m.f.t.Errorf("member %d got entry %d after %d", m.ID(), entry.Index, m.index)
			}
			m.numbers, m.index = append(m.numbers, number(entry.Data)), entry.Index
		}
	})
}

func (m *mate) save(index uint64, numbers []int) {
	err := m.SaveSnapshot(index, func(w io.Writer) error {
		for _, n := range numbers {
			if err := binary.Write(w, binary.LittleEndian, uint64(n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrClosed) {
		m.f.t.Logf("member %d: save a snapshot: %v", m.ID(), err)
	}
}

// Send implements Transport.
func (m *mate) Send(messages []*raftpb.Message) {
	for _, msg := range messages {
		to := msg.GetTo()
		if msg.GetType() == raftpb.MsgSnap {
			m.f.carriers.Go(func() { m.sendSnapshot(msg) })
			continue
		}
		queue, ok := m.queues[to]
		if !ok {
			queue = make(chan []*raftpb.Message, 128)
			m.queues[to] = queue
			m.f.carriers.Go(func() { m.carry(to, queue) })
		}
		select {
		case queue <- []*raftpb.Message{proto.Clone(msg).(*raftpb.Message)}:
		default: // dropped
		}
	}
}

// SetMembers implements Transport.
func (m *mate) SetMembers(members Members) { m.f.change(func() { m.members = members }) }

// peer is who runs under that id and can be reached.
func (m *mate) peer(id uint64) *mate {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	if m.f.cut[m.ID()] || m.f.cut[id] {
		return nil
	}
	return m.f.mates[id]
}

func (m *mate) carry(to uint64, queue <-chan []*raftpb.Message) {
	for {
		select {
		case <-m.stop:
			return
		case messages := <-queue:
			p := m.peer(to)
			if p == nil {
				continue
			}
			if err := p.Receive(context.Background(), messages...); err != nil && !errors.Is(err, ErrClosed) {
				m.f.t.Errorf("from %d to %d: %v", m.ID(), to, err)
			}
		}
	}
}

func (m *mate) sendSnapshot(msg *raftpb.Message) {
	err := errors.New("cut off")
	if p := m.peer(msg.GetTo()); p != nil {
		var body io.ReadCloser
		if body, err = m.OpenSnapshot(msg); err == nil {
			err = errors.Join(p.ReceiveSnapshot(context.Background(), proto.Clone(msg).(*raftpb.Message), body), body.Close())
		}
	}
	m.ReportSnapshot(msg.GetTo(), err == nil)
}

// leader waits for one that is not cut off.
func (f *fleet) leader() *mate {
	f.t.Helper()
	var leader *mate
	f.until("leader", func() bool {
		for id, m := range f.mates {
			if m.role.Leader && !f.cut[id] {
				leader = m
			}
		}
		return leader != nil
	})
	return leader
}

// onLeader has a leader do something, and the next one if it has lost its leadership meanwhile.
func (f *fleet) onLeader(do func(leader *mate) error) error {
	f.t.Helper()
	for {
		if err := do(f.leader()); !errors.Is(err, ErrNotLeader) {
			return err
		}
	}
}

// add adds a member, by whatever leader.
func (f *fleet) add(m Member) (added Member) {
	f.t.Helper()
	if err := f.onLeader(func(leader *mate) (err error) {
		added, err = leader.AddMember(f.t.Context(), m)
		return err
	}); err != nil {
		f.t.Fatalf("AddMember(%+v) = %v", m, err)
	}
	return added
}

// put gets n numbers into the log, and past the consumer of who leads. Numbers whose fate is not known are left behind.
func (f *fleet) put(n int) []int {
	f.t.Helper()
	var sure []int
	for len(sure) < n {
		leader := f.leader()
		from := f.next
		f.next += n - len(sure)
		for i := from; i < f.next; i++ {
			if err := leader.Propose(context.Background(), numbered(i, 100)); errors.Is(err, ErrNotLeader) || errors.Is(err, ErrClosed) {
				break
			} else if err != nil {
				f.t.Fatal(err)
			}
		}
		f.until("entries", func() bool {
			return !leader.role.Leader || f.cut[leader.ID()] || slices.Contains(leader.numbers, f.next-1)
		})
		f.mu.Lock()
		for i := from; i < f.next; i++ {
			if slices.Contains(leader.numbers, i) {
				sure = append(sure, i)
			}
		}
		f.mu.Unlock()
	}
	return sure
}

// same waits until these members hold the same, with all of sure in it.
func (f *fleet) same(sure []int, ids ...uint64) {
	f.t.Helper()
	f.until("agreement", func() bool {
		first := f.mates[ids[0]].numbers
		for _, id := range ids {
			if !slices.Equal(f.mates[id].numbers, first) {
				return false
			}
		}
		return len(first) >= len(sure) && (len(sure) == 0 || slices.Contains(first, sure[len(sure)-1])) // others are before it
	})
	have := map[int]bool{}
	for _, n := range f.mates[ids[0]].numbers {
		if have[n] {
			f.t.Errorf("%d is there twice", n)
		}
		have[n] = true
	}
	for _, n := range sure {
		if !have[n] {
			f.t.Errorf("%d was acknowledged and is not there", n)
		}
	}
}

// untilVoter waits until a member has become a voter.
func (f *fleet) untilVoter(id uint64) {
	f.t.Helper()
	f.until(fmt.Sprint("promotion of ", id), func() bool {
		m, ok := f.mates[id].members.Get(id)
		return ok && m.Voter
	})
}
