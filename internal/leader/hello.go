package leader

import (
	"fmt"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// What a worker's first message may say.
const (
	slotsMax    = 1 << 16
	identityMax = 128 // bytes
	// helloBytesMax bounds what the log keeps of a worker beside its identity.
	helloBytesMax = 64 << 10
	// clockMax is how far a worker's clock may be from the leader's. Times are shown to people and order nothing, but where
	// they are this far apart, one of the two machines is set wrong.
	clockMax = 5 * time.Minute
)

// hello registers the worker of a new session, or refuses it.
func (c *Core) hello(now time.Time, in Hello) {
	h := in.Hello
	if reason := c.objection(now, h); reason != "" {
		c.refuse(in.Session, reason)
		return
	}
	if old := c.machine.ByIdentity(h.GetIdentity()); old != nil {
		w := c.workers[old.ID]
		if w != nil && w.session != nil && !w.lost && w.incarnation != h.GetIncarnation() { // one that said goodbye is no rival
			c.rival(now, in.Session, w, h)
			return
		}
	}
	s := &session{id: in.Session, hello: h, known: map[state.JobID]struct{}{}, sent: now}
	c.sessions[in.Session] = s
	c.send(s, c.pinging) // until a slow log has the registration, this is all that the worker hears of a leader that is there
	c.open(now).Register(registerKey(s.id), &state.WorkerInfo{
		Identity: h.GetIdentity(), Host: h.GetHost(), Address: h.GetAddress(), Version: h.GetVersion(), Slots: h.GetSlots(),
		Memory: h.GetMemory(), Labels: h.GetLabels(),
	})
}

// objection says why a worker cannot be let in, with what both sides have and the way out; empty: it can.
func (c *Core) objection(now time.Time, h *wire.Hello) string {
	theirs, ours := time.UnixMilli(h.GetUnixMs()), now
	if reason := mute(h, wire.ProtocolMin, wire.Protocol); reason != "" {
		return reason
	}
	switch {
	case !printable(h.GetIdentity()) || !printable(h.GetIncarnation()):
		return fmt.Sprintf("the worker calls itself %.*q, in process %.*q: both should be 1 to %d printable characters without blanks; "+
			"remove the file identity in its data directory, and it makes a new one", identityMax, h.GetIdentity(), identityMax, h.GetIncarnation(), identityMax)
	case h.GetSlots() == 0 || h.GetSlots() > slotsMax:
		return fmt.Sprintf("the worker offers %d slots; it should be 1 to %d: start it with another --slots", h.GetSlots(), slotsMax)
	case helloBytes(h) > helloBytesMax:
		return fmt.Sprintf("the worker's host, address, version and labels have %d bytes; they should have at most %d: start it with fewer or "+
			"shorter --label", helloBytes(h), helloBytesMax)
	case h.GetClusterName() != "" && h.GetClusterName() != c.name:
		return fmt.Sprintf("the worker is to join cluster %q, and this leader is of cluster %q: start the worker with --cluster-name %s, "+
			"or with the address of a leader of %q", h.GetClusterName(), c.name, c.name, h.GetClusterName())
	case h.GetClusterId() != "" && c.members.ClusterID != "" && h.GetClusterId() != c.members.ClusterID &&
		!slices.Contains(c.members.Former, h.GetClusterId()):
		return fmt.Sprintf("the worker belongs to cluster %s, and this leader to cluster %s, named %q: start the worker with the address "+
			"of a leader of its own cluster, or, to move it here, with another --data-dir", h.GetClusterId(), c.members.ClusterID, c.name)
	case h.GetUnixMs() != 0 && theirs.Sub(ours).Abs() > clockMax:
		return fmt.Sprintf("the worker's clock says %s, and this leader's %s: set the wrong one right (they may be %v apart)",
			theirs.UTC().Format(time.RFC3339), ours.UTC().Format(time.RFC3339), clockMax)
	}
	return ""
}

func helloBytes(h *wire.Hello) int {
	n := len(h.GetHost()) + len(h.GetAddress()) + len(h.GetVersion())
	for k, v := range h.GetLabels() {
		n += len(k) + len(v)
	}
	return n
}

// mute says why a worker and a leader that speaks the protocols from least to most share none; empty: they do.
func mute(h *wire.Hello, least, most uint32) string {
	theirLeast, theirMost := max(1, h.GetProtocolMin()), max(1, h.GetProtocol())
	switch {
	case theirMost < least:
		return fmt.Sprintf("the worker, version %q, speaks protocol %d, and this leader none before %d: upgrade the worker",
			h.GetVersion(), theirMost, least)
	case theirLeast > most:
		return fmt.Sprintf("the worker, version %q, speaks no protocol before %d, and this leader none after %d: upgrade the leaders, "+
			"then the workers", h.GetVersion(), theirLeast, most)
	}
	return ""
}

// printable reports whether s can be a name in a line of text: 1 to identityMax visible ASCII characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= identityMax
}

// welcome is the answer to the hello of a session whose worker the log has registered.
func (c *Core) welcome(w *worker) *wire.Welcome {
	return &wire.Welcome{
		Worker: uint64(w.ID), Term: c.term, HeartbeatMs: uint32(heartbeat.Milliseconds()), Cluster: c.name, Drain: w.draining,
		ClusterId: c.members.ClusterID, Leaders: c.members.Addresses, SilenceMs: uint32(silence.Milliseconds()),
		IdleHeartbeatMs: uint32(idleHeartbeat.Milliseconds()), IdleSilenceMs: uint32(idleSilence.Milliseconds()),
	}
}

// setMembers tells every worker where the leaders are now.
func (c *Core) setMembers(m Members) {
	moved := !slices.Equal(m.Addresses, c.members.Addresses)
	c.members = m
	if !moved {
		return
	}
	news := &wire.ToWorker{Message: &wire.ToWorker_Leaders{Leaders: &wire.Leaders{Addresses: m.Addresses}}}
	for _, id := range c.sorted(c.workers) {
		if w := c.workers[id]; w.session != nil {
			c.send(w.session, news)
		}
	}
}

// ping sends something to a worker that has not been sent anything for as long as a heartbeat, or would not have been by the
// next tick: a leader that is cut off, stopped or gone is known by its silence.
func (c *Core) ping(now time.Time, s *session) {
	every := heartbeat
	if s.worker != nil && len(s.worker.leases) == 0 {
		every = idleHeartbeat
	}
	if now.Sub(s.sent)+tick > every {
		c.send(s, c.pinging)
	}
}

// pingNewcomers pings the workers whose registrations are on their way through the log.
func (c *Core) pingNewcomers(now time.Time) {
	var pending []SessionID
	for id, s := range c.sessions {
		if s.worker == nil {
			pending = append(pending, id)
		}
	}
	slices.Sort(pending)
	for _, id := range pending {
		c.ping(now, c.sessions[id])
	}
}
