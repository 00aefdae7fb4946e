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

// handleHello starts the registration of a new session's worker, or rejects it.
func (c *Core) handleHello(in Hello) {
	h := in.Hello
	if reason := c.objection(h); reason != "" {
		c.reject(in.Session, reason)
		return
	}
	if old := c.machine.ByIdentity(h.GetIdentity()); old != nil {
		w := c.registry.workers[old.ID]
		if w != nil && w.session != nil && !w.lost && w.incarnation != h.GetIncarnation() { // a drained worker is lost
			c.rejectDuplicate(in.Session, w, h)
			return
		}
	}
	s := &session{id: in.Session, hello: h, known: map[state.JobID]struct{}{}, sent: c.now}
	c.registry.sessions[in.Session] = s
	c.outbox.send(s, newPing()) // the worker must not look for another leader while a slow log takes its registration
	c.open().Register(registerKey(s.id), &state.WorkerInfo{
		Identity: h.GetIdentity(), Host: h.GetHost(), Address: h.GetAddress(), Version: h.GetVersion(), Slots: h.GetSlots(),
		Memory: h.GetMemory(), Labels: h.GetLabels(),
	})
}

// objection says why a worker cannot be let in, with what both sides have and the way out; empty: it can.
func (c *Core) objection(h *wire.Hello) string {
	theirs, ours := time.UnixMilli(h.GetUnixMs()), c.now
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
	case h.GetClusterName() != "" && h.GetClusterName() != c.cluster:
		return fmt.Sprintf("the worker is to join cluster %q, and this leader is of cluster %q: start the worker with --cluster-name %s, "+
			"or with the address of a leader of %q", h.GetClusterName(), c.cluster, c.cluster, h.GetClusterName())
	case h.GetClusterId() != "" && c.members.ClusterID != "" && h.GetClusterId() != c.members.ClusterID &&
		!slices.Contains(c.members.Former, h.GetClusterId()):
		return fmt.Sprintf("the worker belongs to cluster %s, and this leader to cluster %s, named %q: start the worker with the address "+
			"of a leader of its own cluster, or, to move it here, with another --data-dir", h.GetClusterId(), c.members.ClusterID, c.cluster)
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
