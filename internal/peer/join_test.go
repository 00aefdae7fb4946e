package peer

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/replica"
)

// leads makes n the leader of these nodes; it adds members as a replica does.
func leads(n *node, all ...*node) {
	for _, other := range all {
		other.replica.setStatus(replica.Status{LeaderID: n.replica.id, Leader: other == n})
	}
	n.replica.mu.Lock()
	defer n.replica.mu.Unlock()
	n.replica.add = func(_ context.Context, m replica.Member) (replica.Member, error) {
		members := &n.replica.members
		for i, have := range members.List {
			if have.Directory == m.Directory {
				members.List[i].Address = m.Address
				return members.List[i], nil
			}
		}
		if m.ID == 0 {
			m.ID = members.List[len(members.List)-1].ID + 1
		}
		members.List = append(slices.Clone(members.List), m)
		return m, nil
	}
}

func joining(t *testing.T, addresses ...string) (JoinConfig, *logNotes) {
	t.Helper()
	notes := &logNotes{}
	return JoinConfig{
		Addresses: addresses, Self: replica.Member{Address: "127.0.0.1:9", Directory: "new"}, Name: "test", Version: "v1",
		Logger: slog.New(notes),
	}, notes
}

func TestJoinByAHint(t *testing.T) {
	nodes := cluster(t, 3)
	leads(nodes[2], nodes...)
	cfg, _ := joining(t, nodes[0].address)
	got, err := Join(t.Context(), cfg)
	if err != nil || got.ID != 4 || got.Cluster != "c" || got.Name != "test" || len(got.Members.List) != 4 {
		t.Fatalf("Join() = %+v, %v, want id 4 of cluster c with 4 members", got, err)
	}
	if want := (replica.Member{ID: 4, Address: "127.0.0.1:9", Directory: "new"}); got.Members.List[3] != want {
		t.Errorf("the new member is %+v, want %+v", got.Members.List[3], want)
	}
	cfg.Self.Address = "127.0.0.1:10"
	again, err := Join(t.Context(), cfg)
	if err != nil || again.ID != 4 || len(again.Members.List) != 4 || again.Members.List[3].Address != "127.0.0.1:10" {
		t.Errorf("Join() once more = %+v, %v, want the same id at the new address", again, err)
	}
}

// Without a leader a join goes on, also at addresses that it has learned.
func TestJoinWaitsForALeader(t *testing.T) {
	nodes := cluster(t, 2)
	dead := newListener(t)
	shut(t, dead)
	cfg, _ := joining(t, dead.Addr().String(), nodes[0].address)
	asked := make(chan string, 1)
	cfg.Logger = slog.New(callback(func(r slog.Record) {
		r.Attrs(func(a slog.Attr) bool {
			if a.Value.String() == "no leader is elected" {
				select {
				case asked <- a.Key:
				default:
				}
			}
			return true
		})
	}))
	type result struct {
		JoinReply
		err error
	}
	done := make(chan result, 1)
	go func() {
		reply, err := Join(t.Context(), cfg)
		done <- result{reply, err}
	}()
	receive(t, asked, "the answer without a leader")
	leads(nodes[1], nodes[1]) // the first has yet to hear of it
	if got := receive(t, done, "the place"); got.err != nil || got.ID != 3 {
		t.Errorf("Join() = %+v, %v, want id 3", got.JoinReply, got.err)
	}
}

type callback func(slog.Record)

func (callback) Enabled(context.Context, slog.Level) bool        { return true }
func (f callback) WithAttrs([]slog.Attr) slog.Handler            { return f }
func (f callback) WithGroup(string) slog.Handler                 { return f }
func (f callback) Handle(_ context.Context, r slog.Record) error { f(r); return nil }

func TestJoinIsRefused(t *testing.T) {
	nodes := cluster(t, 2)
	leads(nodes[0], nodes...)
	tests := []struct {
		name   string
		change func(*JoinConfig)
		says   string
	}{
		{"other name", func(c *JoinConfig) { c.Name = "prod" }, `"prod"`},
		{"other cluster", func(c *JoinConfig) { c.Cluster = "x" }, "cluster x"},
		{"no address", func(c *JoinConfig) { c.Self.Address = "" }, "--advertise"},
		{"taken id", func(c *JoinConfig) { c.Self.ID = 2 }, "leader 2 already"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := joining(t, nodes[1].address)
			tt.change(&cfg)
			_, err := Join(t.Context(), cfg)
			if _, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Join() = %v, want a *RefusedError that says %q", err, tt.says)
			}
		})
	}
	if _, err := Join(t.Context(), JoinConfig{}); err == nil {
		t.Error("Join() without an address = nil")
	}
}

// The error of a node that gives up says what each leader has said.
func TestJoinGivesUp(t *testing.T) {
	nodes := cluster(t, 1)
	leads(nodes[0], nodes...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked int
	nodes[0].replica.add = func(add context.Context, _ replica.Member) (replica.Member, error) {
		if asked++; asked == 2 { // the first answer has arrived
			cancel()
			<-add.Done()
		}
		return replica.Member{}, errors.New("there is no room for the log")
	}
	cfg, notes := joining(t, nodes[0].address)
	_, err := Join(ctx, cfg)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), nodes[0].address+": there is no room for the log") {
		t.Errorf("Join() = %v, want its end, and what the leader said", err)
	}
	if got := notes.with(); len(got) > 0 {
		t.Errorf("warnings = %q, want none: the caller gets the error", got)
	}
}

// A leader that ends does not wait for the log to take a new member.
func TestJoinEndsWithTheLeader(t *testing.T) {
	nodes := cluster(t, 1)
	leads(nodes[0], nodes...)
	adding := make(chan struct{})
	nodes[0].replica.add = func(ctx context.Context, _ replica.Member) (replica.Member, error) {
		close(adding)
		<-ctx.Done()
		return replica.Member{}, ctx.Err()
	}
	cfg, _ := joining(t, nodes[0].address)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := Join(ctx, cfg)
		done <- err
	}()
	receive(t, adding, "the leader to be asked")
	if err := nodes[0].stop(); err != nil {
		t.Errorf("Run() = %v", err)
	}
	cancel()
	if err := receive(t, done, "the end of Join"); !errors.Is(err, context.Canceled) {
		t.Errorf("Join() = %v, want %v", err, context.Canceled)
	}
}

func TestInviteIsFollowed(t *testing.T) {
	nodes := cluster(t, 2)
	got := make(chan InviteRequest, 1)
	alone := func(id string) (*fakeReplica, replica.Members) {
		m := replica.Members{Cluster: id, List: []replica.Member{{ID: 1, Voter: true}}}
		return newFakeReplica(1, m), m
	}
	r, _ := alone("own")
	fresh := startNode(t, newListener(t), r, func(c *Config) {
		c.Fresh = func() bool { return true }
		c.OnInvite = func(r InviteRequest) error { got <- r; return nil }
	})
	if err := nodes[0].Invite(t.Context(), fresh.address); err != nil {
		t.Fatalf("Invite() = %v", err)
	}
	want := InviteRequest{Cluster: "c", Name: "test", Leaders: []string{nodes[0].address, nodes[1].address}}
	if r := receive(t, got, "the invitation"); r.Cluster != want.Cluster || r.Name != want.Name || !slices.Equal(r.Leaders, want.Leaders) {
		t.Errorf("invitation = %+v, want %+v", r, want)
	}
	if err := nodes[0].Invite(t.Context(), nodes[1].address); err != nil {
		t.Errorf("Invite() of a member = %v, want nil: it is one", err)
	}
	r, _ = alone("own")
	used := startNode(t, newListener(t), r, func(c *Config) {
		c.Fresh = func() bool { return false }
		c.OnInvite = func(InviteRequest) error { t.Error("OnInvite of a node that was used"); return nil }
	})
	r, _ = alone("own")
	deaf := startNode(t, newListener(t), r, nil)
	for _, n := range []*node{used, deaf} {
		err := nodes[0].Invite(t.Context(), n.address)
		if _, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(err.Error(), "used already") {
			t.Errorf("Invite() of a node that was used = %v, want a *RefusedError that says so", err)
		}
	}
	closed := newListener(t)
	shut(t, closed)
	if err := nodes[0].Invite(t.Context(), closed.Addr().String()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Invite() of a closed port = %v, want that the connection was refused", err)
	}
	r, _ = alone("own")
	busy := startNode(t, newListener(t), r, func(c *Config) {
		c.Fresh = func() bool { return true }
		c.OnInvite = func(InviteRequest) error { return errors.New("another cluster was faster") }
	})
	if err := nodes[0].Invite(t.Context(), busy.address); err == nil || !strings.Contains(err.Error(), "another cluster was faster") {
		t.Errorf("Invite() = %v, want what the node said", err)
	}
}
