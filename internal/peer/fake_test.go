package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come. It is no measure of anything.
const patience = time.Minute

// fakeReplica notes what it is given, and answers as its test says.
type fakeReplica struct {
	id        uint64
	directory string
	got       chan *raftpb.Message
	lost      chan uint64 // members reported unreachable; further ones are dropped when it is full
	sent      chan bool   // what became of snapshots that were sent
	taken     chan error  // how the reading of snapshots ended
	updated   chan replica.Member
	hold      chan struct{} // messages with entries are taken once it is closed

	mu       sync.Mutex
	members  replica.Members
	status   replica.Status
	body     func() io.Reader // of the snapshots it has
	snapshot bytes.Buffer     // the one it was sent
	refuse   error            // what ReceiveSnapshot says, without a look at the body
	add      func(context.Context, replica.Member) (replica.Member, error)
}

func newFakeReplica(id uint64, m replica.Members) *fakeReplica {
	r := &fakeReplica{
		id: id, directory: fmt.Sprintf("d%d", id), members: m, got: make(chan *raftpb.Message, 1<<16), lost: make(chan uint64, 64),
		sent: make(chan bool, 64), taken: make(chan error, 64), updated: make(chan replica.Member, 64), hold: make(chan struct{}),
	}
	close(r.hold)
	return r
}

func (r *fakeReplica) ID() uint64        { return r.id }
func (r *fakeReplica) Directory() string { return r.directory }

func (r *fakeReplica) Members() replica.Members {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members
}

func (r *fakeReplica) Status() replica.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

func (r *fakeReplica) setStatus(s replica.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = s
}

func (r *fakeReplica) Receive(ctx context.Context, msgs ...*raftpb.Message) error {
	for _, m := range msgs {
		if len(m.GetEntries()) > 0 {
			select {
			case <-r.hold:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r.got <- m
	}
	return nil
}

func (r *fakeReplica) ReceiveSnapshot(_ context.Context, m *raftpb.Message, body io.Reader) error {
	r.mu.Lock()
	refuse := r.refuse
	r.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	var b bytes.Buffer
	_, err := b.ReadFrom(body)
	r.mu.Lock()
	r.snapshot = b
	r.mu.Unlock()
	r.taken <- err
	if err == nil {
		r.got <- m
	}
	return err
}

func (r *fakeReplica) OpenSnapshot(*raftpb.Message) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return nil, errors.New("there is no such snapshot")
	}
	return io.NopCloser(r.body()), nil
}

func (r *fakeReplica) ReportSnapshot(_ uint64, ok bool) { r.sent <- ok }

func (r *fakeReplica) ReportUnreachable(id uint64) {
	select {
	case r.lost <- id:
	default:
	}
}

func (r *fakeReplica) AddMember(ctx context.Context, m replica.Member) (replica.Member, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.add(ctx, m)
}

func (r *fakeReplica) UpdateMember(_ context.Context, m replica.Member) error {
	r.updated <- m
	return nil
}

// node is a transport that is served on a port of its own.
type node struct {
	*Transport
	t       testing.TB
	replica *fakeReplica
	log     *logNotes
	address string
	network *network
	stop    func() error // ends it; gives what Run has returned
	run     chan error
}

// newListener takes a port for a node.
func newListener(tb testing.TB) net.Listener {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// close gives a port back.
func shut(tb testing.TB, l net.Listener) {
	tb.Helper()
	if err := l.Close(); err != nil {
		tb.Error(err)
	}
}

// startNode runs a node until the test ends. change may be nil.
func startNode(tb testing.TB, l net.Listener, r *fakeReplica, change func(*Config)) *node {
	tb.Helper()
	n := &node{t: tb, replica: r, address: l.Addr().String(), log: &logNotes{}, network: &network{}, run: make(chan error, 1)}
	cfg := Config{
		Name: "test", Self: replica.Member{Address: n.address}, Version: "v1", Logger: slog.New(n.log), Dial: n.network.dial,
	}
	if change != nil {
		change(&cfg)
	}
	n.Transport = New(cfg)
	n.SetMembers(r.Members())
	n.Attach(r)
	ctx, cancel := context.WithCancel(context.Background())
	server := wire.NewServer()
	n.Register(server)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	go func() { n.run <- n.Run(ctx) }()
	var once sync.Once
	var result error
	n.stop = func() error {
		once.Do(func() {
			cancel()
			result = n.ended()
			server.Stop()
			<-served
		})
		return result
	}
	tb.Cleanup(func() { _ = n.stop() })
	return n
}

// ended waits for the end of Run.
func (n *node) ended() error {
	n.t.Helper()
	err := receive(n.t, n.run, "the end of Run")
	n.run <- err
	return err
}

// cluster starts nodes 1 to size, which know each other.
func cluster(tb testing.TB, size int, change ...func(*Config)) []*node {
	tb.Helper()
	listeners, members := make([]net.Listener, size), replica.Members{Cluster: "c"}
	for i := range listeners {
		listeners[i] = newListener(tb)
		members.List = append(members.List, replica.Member{
			ID: uint64(i + 1), Address: listeners[i].Addr().String(), Directory: fmt.Sprintf("d%d", i+1), Voter: true,
		})
	}
	nodes := make([]*node, size)
	for i, l := range listeners {
		nodes[i] = startNode(tb, l, newFakeReplica(uint64(i+1), members), func(c *Config) {
			for _, f := range change {
				f(c)
			}
		})
	}
	return nodes
}

func receive[T any](tb testing.TB, c <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience): //nolint:forbidigo // the test has failed by then
		tb.Fatalf("timed out waiting for %s", what)
		panic("unreachable")
	}
}

func message(kind raftpb.MessageType, from, to, index uint64, data ...byte) *raftpb.Message {
	m := &raftpb.Message{Type: kind.Enum(), From: new(from), To: new(to), Index: new(index)}
	if len(data) > 0 {
		m.Entries = []*raftpb.Entry{{Index: new(index + 1), Data: data}}
	}
	return m
}

// untilHeard sends votes from a to b until one arrives: those sent while there is no link are lost, as they may be.
func untilHeard(tb testing.TB, a, b *node) {
	tb.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		a.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, a.replica.id, b.replica.id, 0)})
		select {
		case m := <-b.replica.got:
			if m.GetFrom() == a.replica.id {
				return
			}
		case <-again.C:
		case <-deadline.C:
			tb.Fatalf("nothing of leader %d arrives at leader %d", a.replica.id, b.replica.id)
		}
	}
}

// linked waits until all of them reach each other.
func linked(tb testing.TB, nodes ...*node) {
	tb.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				untilHeard(tb, a, b)
			}
		}
	}
}

// network dials, unless it is cut: then bytes vanish, both those of old connections and those of new ones.
type network struct {
	cut atomic.Bool
	// dialed counts connections, real or not.
	dialed atomic.Int64
}

func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.dialed.Add(1)
	if n.cut.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &cable{Conn: c, network: n}, nil
}

type cable struct {
	net.Conn
	network *network
	broken  atomic.Bool // a cable that was cut stays so
}

func (c *cable) cut() bool {
	if c.network.cut.Load() {
		c.broken.Store(true)
	}
	return c.broken.Load()
}

func (c *cable) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.cut() {
			return n, err
		}
	}
}

func (c *cable) Write(p []byte) (int, error) {
	if c.cut() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// logNotes keeps what is logged.
type logNotes struct {
	mu    sync.Mutex
	all   []string
	lines []string // warnings
}

func (*logNotes) Enabled(context.Context, slog.Level) bool { return true }
func (h *logNotes) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h *logNotes) WithGroup(string) slog.Handler          { return h }

func (h *logNotes) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, r.Time.Format("05.000 ")+line)
	if r.Level >= slog.LevelWarn {
		h.lines = append(h.lines, line)
	}
	return nil
}

// with gives the warnings that hold all of these.
func (h *logNotes) with(all ...string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []string
	for _, line := range h.lines {
		if !slices.ContainsFunc(all, func(s string) bool { return !strings.Contains(line, s) }) {
			found = append(found, line)
		}
	}
	return found
}
