package node

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/view"
)

// lookEvery is how often the node looks for what comes without an event.
const lookEvery = 100 * time.Millisecond

// lookAround takes note, now and then, of what comes without an event: who the members are, and that nothing is heard any more.
func (n *Node) lookAround(now time.Time) {
	if now.Sub(n.loop.looked) < lookEvery {
		return
	}
	n.loop.looked = now
	n.dropShadow(now)
	n.lookAtLevel()
	members, leader := n.cfg.Log.Members(), n.cfg.Log.Status().LeaderID
	old := n.members.Load()
	if members.Cluster != old.Cluster || !slices.Equal(members.List, old.List) || !slices.Equal(members.Former, old.Former) {
		n.members.Store(&members)
		n.loop.controller.SetMembers(Members(members))
		n.ready.changed.Notify()
	}
	if leader != n.loop.leader {
		n.loop.leader = leader
		n.ready.changed.Notify()
	}
}

// lookAtLevel raises the feature level once every leader can read the highest that this program can, and has those refused that
// cannot read the cluster's.
func (n *Node) lookAtLevel() {
	m := n.loop.controller.Machine()
	if level := m.Level(); level != n.loop.level {
		n.loop.level = level
		n.log.Info("feature level", "level", level, "needs", m.Needs())
		if n.cfg.Peers != nil {
			n.cfg.Peers.SetLevel(level, m.Needs())
		}
	}
	if n.loop.controller.Leading() && n.loop.level < state.FeatureLevel && (n.cfg.Peers == nil || len(n.cfg.Peers.Behind(state.FeatureLevel)) == 0) {
		n.loop.controller.Handle(leader.RaiseLevel{Needs: n.cfg.Version})
	}
}

// address is where a member is reached; empty where it is none.
func (n *Node) address(id uint64) string {
	m, _ := n.members.Load().Get(id)
	return m.Address
}

// LeaderAddress is where the node that leads is reached, and whether it is this one. Empty: none is known. A node that was
// elected leads once it has applied what the log holds, and not before.
func (n *Node) LeaderAddress() (address string, self bool) {
	status := n.cfg.Log.Status()
	switch {
	case n.ready.leading():
		return n.address(status.ID), true
	case status.LeaderID == 0 || status.LeaderID == status.ID:
		return "", false
	}
	return n.address(status.LeaderID), false
}

// WaitLeader returns when a leader is known.
func (n *Node) WaitLeader(ctx context.Context) error {
	return n.ready.changed.Wait(ctx, func() (bool, error) {
		address, self := n.LeaderAddress()
		return self || address != "", nil
	})
}

// ReadIndex returns a position of the log that has all that was acknowledged before the call, by whatever node.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	const patience = 5 * time.Second
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	index, err := n.cfg.Log.ReadIndex(patient)
	switch {
	case err == nil:
		return index, nil
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case patient.Err() != nil:
		return 0, api.Unavailable("no majority of the %d leaders has answered within %v, so nobody can say what is true now; "+
			"?consistency=stale reads what this leader knows", len(n.members.Load().List), patience)
	}
	return 0, api.Unavailable("strong read: %v", err)
}

// silentAfter without a word a leader counts as silent: an election takes no longer.
const silentAfter = time.Second

// Leaders are all leaders of the cluster, by number.
func (n *Node) Leaders() api.LeaderList {
	members, status, now, leads := n.members.Load(), n.cfg.Log.Status(), time.Now(), n.ready.leading()
	list := api.LeaderList{Cluster: members.Cluster, Name: n.cfg.Cluster, Term: status.Term, Leaders: make([]api.LeaderNode, 0, len(members.List))}
	told := n.received.Load()
	if told == nil {
		told = &shadow{}
	}
	for _, m := range members.List {
		l := api.LeaderNode{ID: m.ID, Address: m.Address, Votes: m.Voter, Self: m.ID == status.ID}
		var heard time.Time
		switch {
		case l.Self:
			l.Index, heard = status.Last, now
		case leads:
			if i := slices.IndexFunc(status.Peers, func(p replica.PeerStatus) bool { return p.ID == m.ID }); i >= 0 {
				l.Index, heard = status.Peers[i].Match, status.Peers[i].Heard
			}
		case m.ID == status.LeaderID:
			l.Index, heard = told.index, status.Heard
		default:
			l.Index, heard = told.leaders[m.ID].match, told.leaders[m.ID].heard
		}
		untold := !leads && told.leaders == nil && m.ID != status.LeaderID
		l.Status = leaderStatus(&l, status.LeaderID, untold, now.Sub(heard) > silentAfter)
		if !heard.IsZero() {
			l.Heard = &heard
		}
		list.Leaders = append(list.Leaders, l)
	}
	return list
}

func leaderStatus(n *api.LeaderNode, leader uint64, untold, silent bool) string {
	switch {
	case !n.Self && (leader == 0 || untold):
		return api.LeaderUnknown
	case silent:
		return api.LeaderSilent
	case n.ID == leader:
		return api.LeaderLeads
	case !n.Votes:
		return api.LeaderLearns
	}
	return api.LeaderFollows
}

// invitePatience is how long an invitation waits for who has agreed to come.
const invitePatience = 10 * time.Second

// AddLeader asks the fresh leader at address to join, and returns when it is a member.
func (n *Node) AddLeader(ctx context.Context, address string) (api.LeaderNode, error) {
	if !n.awaitLeading(ctx, electionWait) {
		return api.LeaderNode{}, n.notLeader()
	}
	before := n.Leaders().Leaders
	if i := slices.IndexFunc(before, func(l api.LeaderNode) bool { return l.Address == address }); i >= 0 {
		return before[i], nil
	}
	if n.cfg.InviteLeader == nil {
		return api.LeaderNode{}, api.Conflict("this leader stands alone: it was started to be the only one")
	}
	if err := n.cfg.InviteLeader(ctx, address); err != nil {
		return api.LeaderNode{}, invited(ctx, "leader", address, err)
	}
	var added api.LeaderNode
	err := n.come(ctx, "leader", address, n.ready.changed, func() (bool, error) {
		for _, l := range n.Leaders().Leaders { // it may call itself by another address
			if !slices.ContainsFunc(before, func(b api.LeaderNode) bool { return b.ID == l.ID }) {
				added = l
				return true, nil
			}
		}
		return false, nil
	})
	return added, err
}

// RemoveLeader returns when the leader is no member any more.
func (n *Node) RemoveLeader(ctx context.Context, id uint64, force bool) error {
	if !n.awaitLeading(ctx, electionWait) {
		return n.notLeader()
	}
	members := n.cfg.Log.Members()
	if _, ok := members.Get(id); !ok {
		return api.NotFound("there is no leader %d", id)
	}
	err := n.cfg.Log.RemoveMember(ctx, id, force)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replica.ErrNotLeader):
		return n.notLeader()
	case errors.Is(err, replica.ErrClosed):
		return n.stopping()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return api.Conflict("remove leader %d: %v", id, err)
}

// InviteWorker asks the idle worker at address to join, and returns when it has registered.
func (n *Node) InviteWorker(ctx context.Context, address string) (api.Worker, error) {
	if !n.awaitLeading(ctx, electionWait) {
		return api.Worker{}, n.notLeader()
	}
	if n.cfg.InviteWorker == nil {
		return api.Worker{}, api.Conflict("this leader invites no workers")
	}
	same := addressMatcher(ctx, address)
	identity := "" // of the idle worker that is found there: it may register with another of its addresses
	if n.cfg.IdleWorkers != nil {
		for _, w := range n.cfg.IdleWorkers() {
			if same(w.Address) {
				identity = w.Identity
			}
		}
	}
	var found api.Worker
	here := func() (bool, error) {
		_, workers := n.views.Cluster()
		for _, w := range workers {
			known := w.Identity == identity && identity != "" || same(w.Address)
			if known && w.Status != state.WorkerDead.String() {
				found = w
				return true, nil
			}
		}
		return false, nil
	}
	if ok, _ := here(); ok {
		return found, nil
	}
	if err := n.cfg.InviteWorker(ctx, address); err != nil {
		return api.Worker{}, invited(ctx, "worker", address, err)
	}
	err := n.come(ctx, "worker", address, n.views.Changed(), here)
	return found, err
}

// come waits for somebody who has agreed to come.
func (n *Node) come(ctx context.Context, what, address string, changed *view.Broadcast, here func() (bool, error)) error {
	late := api.Unavailable("the %s at %s has agreed to join, but has not come within %v; its log says why", what, address, invitePatience)
	patient, cancel := context.WithTimeoutCause(ctx, invitePatience, late)
	defer cancel()
	return changed.Wait(patient, here)
}

// invited is what a client is told of an invitation that has come to nothing.
func invited(ctx context.Context, what, address string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p
	}
	return api.Conflict("invite the %s at %s: %v", what, address, err)
}

// addressMatcher says which addresses are the same as address: it may be a name, and a worker tells a number.
func addressMatcher(ctx context.Context, address string) func(other string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return func(string) bool { return false }
	}
	hosts, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		hosts = nil
	}
	return func(other string) bool {
		h, p, err := net.SplitHostPort(other)
		return err == nil && p == port && (h == host || slices.Contains(hosts, h))
	}
}

// idleWorkers are those on the network that wait to be invited, and are no members.
func (n *Node) idleWorkers() []api.Worker {
	if n.cfg.IdleWorkers == nil {
		return nil
	}
	_, members := n.views.Cluster()
	list := slices.DeleteFunc(slices.Clone(n.cfg.IdleWorkers()), func(idle api.Worker) bool {
		return slices.ContainsFunc(members, func(w api.Worker) bool { return w.Identity == idle.Identity })
	})
	slices.SortFunc(list, func(a, b api.Worker) int { return cmp.Compare(a.Address, b.Address) })
	for i := range list {
		list[i].ID, list[i].Status = 0, api.WorkerIdle
	}
	return list
}

// Consensus is this node's view of the election.
func (n *Node) Consensus() api.Consensus {
	status := n.cfg.Log.Status()
	c := api.Consensus{ID: status.ID, Term: status.Term, Role: status.Role, Peers: []api.Peer{}}
	some := func(id uint64) *uint64 {
		if id == 0 {
			return nil
		}
		return &id
	}
	when := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	c.VotedFor, c.Leader = some(status.VotedFor), some(status.LeaderID)
	c.LastElection, c.LastHeartbeat = when(status.Campaigned), when(status.Heard)
	for _, m := range n.members.Load().List {
		if m.ID == status.ID {
			continue
		}
		p := api.Peer{ID: m.ID}
		if host, port, err := net.SplitHostPort(m.Address); err == nil {
			p.Host = host
			p.Port, _ = strconv.Atoi(port) // what is no number is shown as 0
		}
		c.Peers = append(c.Peers, p)
	}
	return c
}
