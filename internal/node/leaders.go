package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/view"
)

// pollEvery is how often the node checks what changes without an event.
const pollEvery = 100 * time.Millisecond

// polled is what the last poll has seen.
type polled struct {
	at       time.Time
	leaderID uint64
	level    uint32 // feature level
	// behind are the leaders that hold up its rise, while this node leads; behindSince is zero once that is logged.
	behind      []uint64
	behindSince time.Time
}

// poll checks, every now and then, what changes without an event: the members, the leader, the feature level, the age of the volatile state.
func (n *Node) poll(now time.Time) {
	if now.Sub(n.loop.polled.at) < pollEvery {
		return
	}
	n.loop.polled.at = now
	n.dropOldVolatile(now)
	n.updateLevel(now)
	members, leader := n.cfg.Log.Members(), n.cfg.Log.Status().LeaderID
	old := n.members.Load()
	if members.Cluster != old.Cluster || !slices.Equal(members.List, old.List) || !slices.Equal(members.Former, old.Former) {
		n.members.Store(&members)
		n.loop.controller.SetMembers(Members(members))
		n.ready.changed.Notify()
	}
	if leader != n.loop.polled.leaderID {
		n.loop.polled.leaderID = leader
		n.ready.changed.Notify()
	}
}

// behindMax is how long leaders may hold up the rise of the feature level before it is logged.
const behindMax = 10 * time.Second

// updateLevel raises the feature level once every node can read the highest level of this binary, and makes the transport refuse nodes
// that cannot read the level of the cluster.
func (n *Node) updateLevel(now time.Time) {
	m := n.loop.controller.Machine()
	if level := m.Level(); level != n.loop.polled.level {
		n.loop.polled.level = level
		n.log.Info("feature level", "level", level, "needs", m.Needs())
		if n.cfg.Peers != nil {
			n.cfg.Peers.SetLevel(level, m.Needs())
		}
	}
	if !n.loop.controller.Leading() || n.loop.polled.level >= state.FeatureLevel {
		return
	}
	var behind []uint64
	if n.cfg.Peers != nil {
		behind = n.cfg.Peers.Behind(state.FeatureLevel)
	}
	switch {
	case len(behind) == 0:
		n.loop.controller.Handle(leader.RaiseLevel{Needs: n.cfg.Version})
	case !slices.Equal(behind, n.loop.polled.behind):
		n.loop.polled.behind, n.loop.polled.behindSince = behind, now
	case !n.loop.polled.behindSince.IsZero() && now.Sub(n.loop.polled.behindSince) > behindMax:
		n.loop.polled.behindSince = time.Time{} // logged once
		n.log.Info("feature level not raised: these leaders have an older version, or are not connected", "level", n.loop.polled.level,
			"next", state.FeatureLevel, "leaders", behind)
	}
}

// address returns the address of a member; empty: there is none.
func (n *Node) address(id uint64) string {
	m, _ := n.members.Load().Get(id)
	return m.Address
}

// LeaderAddress returns the address of the leader, and whether it is this node. Empty: none is known. An elected node leads once it has
// applied all earlier entries.
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

// WaitLeader returns when a leader is known, other than the one at an address that is gone.
func (n *Node) WaitLeader(ctx context.Context, gone string) error {
	return n.ready.changed.Wait(ctx, func() (bool, error) {
		address, self := n.LeaderAddress()
		return self || address != "" && address != gone, nil
	})
}

// ReadIndex returns a log position that includes everything that any node acknowledged before the call.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	const timeout = 5 * time.Second
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	index, err := n.cfg.Log.ReadIndex(limited)
	switch {
	case err == nil:
		return index, nil
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case limited.Err() != nil:
		return 0, api.Unavailable("no majority of the %d leaders confirmed within %v what is current, so this read cannot be strong; "+
			"?consistency=stale reads the state of this leader", len(n.members.Load().List), timeout)
	}
	return 0, api.Unavailable("strong read: %v", err)
}

// catchUp returns when the views of this node, which may have just been elected, or may have been deposed and not know it, reflect everything that any node
// acknowledged before the call. It is for a change that would be refused by what the views show: a refusal is an answer that must be right, too.
func (n *Node) catchUp(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, electionWait)
	defer cancel()
	index, err := n.cfg.Log.ReadIndex(limited)
	if err == nil {
		err = n.WaitIndex(limited, index)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return api.NotLeader("this leader cannot tell within %[2]v whether it is current, because no majority of the %[1]d leaders answers, so the request was not carried out: send it again",
		len(n.members.Load().List), electionWait)
}

// silentAfter without a message a node counts as silent: an election takes no longer.
const silentAfter = time.Second

// Leaders returns the nodes of the cluster, by number.
func (n *Node) Leaders() api.LeaderList {
	members, status, now, leads := n.members.Load(), n.cfg.Log.Status(), time.Now(), n.ready.leading()
	list := api.LeaderList{Cluster: members.Cluster, Name: n.cfg.Cluster, Term: status.Term, Leaders: make([]api.LeaderNode, 0, len(members.List))}
	received := n.received.Load()
	if received == nil {
		received = &volatileState{}
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
			l.Index, heard = received.index, status.Heard
		default:
			l.Index, heard = received.leaders[m.ID].match, received.leaders[m.ID].heard
		}
		unknown := !leads && received.leaders == nil && m.ID != status.LeaderID
		l.Status = leaderStatus(&l, status.LeaderID, unknown, now.Sub(heard) > silentAfter)
		if !heard.IsZero() {
			l.Heard = &heard
		}
		list.Leaders = append(list.Leaders, l)
	}
	if n.pin() != nil {
		for machine := range n.Access().Machines() {
			i := slices.IndexFunc(list.Leaders, func(l api.LeaderNode) bool { return l.ID == machine.Member })
			if i >= 0 && machine.Role == access.RoleLeader && machine.Revoked == 0 {
				list.Leaders[i].Token = n.joinToken(machine)
			}
		}
	}
	return list
}

func leaderStatus(n *api.LeaderNode, leader uint64, unknown, silent bool) string {
	switch {
	case !n.Self && (leader == 0 || unknown):
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

// inviteTimeout bounds the time from an accepted invitation until the machine has joined.
const inviteTimeout = 10 * time.Second

// AddLeader invites the fresh node at address, and returns when it is a member.
func (n *Node) AddLeader(ctx context.Context, address string) (api.LeaderNode, error) {
	if !n.awaitLeading(ctx, electionWait) {
		return api.LeaderNode{}, n.notLeader()
	}
	before := n.Leaders().Leaders
	if i := slices.IndexFunc(before, func(l api.LeaderNode) bool { return l.Address == address }); i >= 0 {
		return before[i], nil
	}
	if n.pin() != nil {
		return api.LeaderNode{}, api.Conflict("the connections of this cluster are encrypted, so it cannot invite a leader: give it, as --join STRING, what " +
			"'bridgefour token create --role leader' prints")
	}
	if n.cfg.InviteLeader == nil {
		return api.LeaderNode{}, api.Conflict("this leader cannot invite leaders")
	}
	if err := n.cfg.InviteLeader(ctx, address); err != nil {
		return api.LeaderNode{}, inviteProblem(ctx, "leader", address, err)
	}
	var added api.LeaderNode
	err := n.awaitJoin(ctx, "leader", address, n.ready.changed, func() (bool, error) {
		for _, l := range n.Leaders().Leaders { // it may advertise another address
			if !slices.ContainsFunc(before, func(b api.LeaderNode) bool { return b.ID == l.ID }) {
				added = l
				return true, nil
			}
		}
		return false, nil
	})
	return added, err
}

// RemoveLeader returns when the node is no longer a member. That it is none already is a success too: a request that the node itself has
// forwarded is sent again by its client, because the node ends before it has passed the answer on. Its id is never used again.
func (n *Node) RemoveLeader(ctx context.Context, id uint64, force bool) error {
	if !n.awaitLeading(ctx, electionWait) {
		return n.notLeader()
	}
	members := n.cfg.Log.Members()
	if _, ok := members.Get(id); !ok && !slices.Contains(members.Removed, id) {
		if err := n.catchUp(ctx); err != nil {
			return err
		}
		members = n.cfg.Log.Members()
	}
	if slices.Contains(members.Removed, id) {
		return nil
	}
	if _, ok := members.Get(id); !ok {
		return api.NotFound("there is no leader %d", id)
	}
	err := n.reconcileLeaders(ctx) // if this process ends after the next line, the next leader knows whose key to revoke
	if err != nil {
		return err
	}
	err = n.cfg.Log.RemoveMember(ctx, id, force)
	switch {
	case err == nil:
		return n.reconcileLeaders(context.WithoutCancel(ctx)) // also if the client no longer waits
	case errors.Is(err, replica.ErrNotLeader):
		return n.notLeader()
	case errors.Is(err, replica.ErrClosed):
		return n.stopping()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return api.Conflict("remove leader %d: %v", id, err)
}

// reconcileLeaders brings the enrolments of leaders in line with the members, whose changes are entries of raft's own: it notes the number of a
// member, and revokes the key of one that was removed. An enrolment without a number is of a leader that is joining.
func (n *Node) reconcileLeaders(ctx context.Context) error {
	members := n.cfg.Log.Members()
	for machine := range n.Access().Machines() {
		if machine.Role != access.RoleLeader || machine.Revoked != 0 {
			continue
		}
		now := *machine
		if i := slices.IndexFunc(members.List, func(m replica.Member) bool { return m.Directory == now.Name && now.Name != "" }); i >= 0 {
			now.Member = members.List[i].ID
		}
		var err error
		switch {
		case slices.Contains(members.Removed, now.Member):
			err = n.RevokeMachine(ctx, now.Fingerprint)
		case now.Member != machine.Member:
			err = n.Enroll(ctx, &now)
		}
		if err != nil {
			return fmt.Errorf("key of leader %d: %w", now.Member, err)
		}
	}
	return nil
}

// awaitJoin waits for a machine that has accepted an invitation.
func (n *Node) awaitJoin(ctx context.Context, what, address string, changed *view.Broadcast, joined func() (bool, error)) error {
	late := api.Unavailable("the %s at %s accepted the invitation but did not join within %v; see its log", what, address, inviteTimeout)
	limited, cancel := context.WithTimeoutCause(ctx, inviteTimeout, late)
	defer cancel()
	return changed.Wait(limited, joined)
}

// inviteProblem converts the error of an invitation.
func inviteProblem(ctx context.Context, what, address string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p
	}
	return api.Conflict("invite the %s at %s: %v", what, address, err)
}

// addressMatcher returns a function that compares addresses with one that may contain a host name, which is resolved.
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

// idleWorkers returns the workers on the network that wait for an invitation, except those that have registered meanwhile.
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

// Consensus returns this node's view of the election.
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
			p.Port, _ = strconv.Atoi(port) // an invalid port is shown as 0
		}
		c.Peers = append(c.Peers, p)
	}
	return c
}
