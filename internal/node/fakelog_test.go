package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/internal/replica"
)

// fakeGroup is the log of a whole cluster, in memory: proposals of its leader are committed and delivered at once, unless a test
// holds them, cuts a node off, or deposes the leader.
type fakeGroup struct {
	mu      sync.Mutex
	logs    []*fakeLog // by id, from 1
	members replica.Members
	entries []replica.Entry // of which those without data are raft's own
	term    uint64
	leader  uint64
	full    error
	held    bool
	queue   [][]byte      // proposed while held
	silent  bool          // no majority answers
	reading int           // reads that wait
	changed chan struct{} // closed, and replaced, when a read that waits should look again
}

// fakeLog is the log of one node.
type fakeLog struct {
	*fakeGroup
	id      uint64
	events  chan replica.Event
	applied uint64
	cut     bool // nothing reaches this node
	lagging bool // no entry reaches this node
	writing time.Time
	saved   []byte
	save    chan struct{} // a snapshot is not saved before this is closed
}

func newFakeGroup(n int) []*fakeLog {
	g := &fakeGroup{changed: make(chan struct{}), members: replica.Members{Cluster: "c1"}}
	for i := range n {
		id := uint64(i) + 1
		g.logs = append(g.logs, &fakeLog{fakeGroup: g, id: id, events: make(chan replica.Event, 1<<16)}) // never full: nothing waits for it
		g.members.List = append(g.members.List, replica.Member{ID: id, Address: fmt.Sprintf("leader-%d:1", id), Voter: true})
	}
	return g.logs
}

func newFakeLog() *fakeLog { return newFakeGroup(1)[0] }

func (l *fakeLog) Events() <-chan replica.Event { return l.events }

func (l *fakeLog) Propose(_ context.Context, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.leader != l.id:
		return replica.ErrNotLeader
	case l.full != nil:
		return l.full
	case l.held:
		l.queue = append(l.queue, data)
		return nil
	}
	l.commit(data)
	return nil
}

// commit is called with the lock held. An entry without data is one of raft's own.
func (g *fakeGroup) commit(data []byte) {
	g.entries = append(g.entries, replica.Entry{Index: uint64(len(g.entries)) + 1, Term: g.term, Data: data})
	for _, l := range g.logs {
		l.deliver()
	}
	g.tell()
}

func (g *fakeGroup) tell() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// deliver delivers new entries to a node that is not cut off.
func (l *fakeLog) deliver() {
	if l.cut || l.lagging || l.applied >= uint64(len(l.entries)) {
		return
	}
	for _, e := range l.entries[l.applied:] {
		if len(e.Data) > 0 {
			l.events <- replica.Event{Entries: []replica.Entry{e}}
		}
	}
	l.applied = uint64(len(l.entries))
}

func (l *fakeLog) SaveSnapshot(_ uint64, write func(io.Writer) error) error {
	l.mu.Lock()
	save := l.save
	l.mu.Unlock()
	if save != nil {
		<-save
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	saved, err := io.ReadAll(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saved = saved
	return err
}

func (l *fakeLog) Status() replica.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint64(len(l.entries))
	s := replica.Status{ID: l.id, Term: l.term, Leader: l.leader == l.id, Committed: n, Applied: l.applied, Last: n, LogFull: l.full, Writing: l.writing, Role: "Follower"}
	if l.cut || l.lagging {
		s.Committed, s.Last = l.applied, l.applied
	}
	if l.cut {
		return s
	}
	if s.LeaderID = l.leader; s.LeaderID != 0 {
		s.Heard = time.Now()
	}
	if s.Leader {
		s.Role, s.VotedFor = "Leader", l.id
		for _, other := range l.logs {
			if other != l {
				s.Peers = append(s.Peers, replica.PeerStatus{ID: other.id, Match: other.applied, Heard: time.Now(), Active: true})
			}
		}
	}
	return s
}

func (l *fakeLog) Members() replica.Members {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.members
	m.List = slices.Clone(m.List)
	return m
}

// setMembers changes the members.
func (g *fakeGroup) setMembers(change func(m *replica.Members)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.members)
}

func (l *fakeLog) RemoveMember(_ context.Context, id uint64, force bool) error {
	switch {
	case !force:
		return fmt.Errorf("%w: arithmetic of the test", replica.ErrQuorum)
	case id == l.id:
		return replica.ErrNotLeader
	}
	l.setMembers(func(m *replica.Members) {
		m.List = slices.DeleteFunc(slices.Clone(m.List), func(m replica.Member) bool { return m.ID == id })
		m.Removed = append(slices.Clone(m.Removed), id)
	})
	return nil
}

func (l *fakeLog) Usage() replica.Usage { return replica.Usage{Log: 4096, Free: 1 << 30} }

// ReadIndex waits for a leader with a majority.
func (l *fakeLog) ReadIndex(ctx context.Context) (uint64, error) {
	for {
		l.mu.Lock()
		index, ok, changed := uint64(len(l.entries)), l.leader != 0 && !l.silent && !l.cut, l.changed
		if !ok {
			l.reading++
		}
		l.mu.Unlock()
		if ok {
			return index, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		l.mu.Lock()
		l.reading--
		l.mu.Unlock()
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

// elect makes this node the leader of a new term. It commits the first kept entries of those held; the others are lost.
func (l *fakeLog) elect(kept ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.queue
	l.queue, l.held = nil, false
	l.term++
	last := l.leader
	l.leader = l.id
	for _, other := range l.logs {
		if !other.cut && (other != l || last == l.id) {
			other.events <- replica.Event{Role: &replica.Role{Term: l.term, LeaderID: l.id}}
		}
	}
	for _, n := range kept {
		for _, data := range queue[:n] {
			l.commit(data)
		}
	}
	l.commit(nil)
	l.events <- replica.Event{Role: &replica.Role{Leader: true, Term: l.term, LeaderID: l.id}}
}

// depose ends the term of this node without a new leader. The next one may commit entries that are held.
func (l *fakeLog) depose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leader = 0
	for _, other := range l.logs {
		if !other.cut {
			other.events <- replica.Event{Role: &replica.Role{Term: l.term}}
		}
	}
}

// hold delays the commit of proposals until release.
func (g *fakeGroup) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = true
}

func (g *fakeGroup) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	for _, data := range g.queue {
		g.commit(data)
	}
	g.queue = nil
}

// setSilent removes or restores the majority.
func (g *fakeGroup) setSilent(silent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.silent = silent
	g.tell()
}

// setCut cuts the node off from all others, or reconnects it.
func (l *fakeLog) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	l.deliver()
	l.tell()
}

// setLagging holds entries back from the node, which is still in contact with the leader.
func (l *fakeLog) setLagging(lagging bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lagging = lagging
	l.deliver()
	l.tell()
}

// install updates a node that was cut off with a snapshot instead of entries.
func (l *fakeLog) install(snapshot io.ReadCloser, index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events <- replica.Event{Snapshot: snapshot, SnapshotIndex: index}
	l.applied, l.cut = index, false
	l.deliver()
}

// fill makes the log full, or gives it room again.
func (l *fakeLog) fill(full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !full {
		l.full = nil
		l.events <- replica.Event{LogRoom: true}
		return
	}
	l.full = fmt.Errorf("disk of the test: %w", replica.ErrLogFull)
	l.events <- replica.Event{LogFull: l.full}
}

var errTest = errors.New("said the test")
