package leader

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Limits of a Hello.
const (
	identityMax = 128     // bytes
	memoryMax   = 1 << 60 // bytes
	labelsMax   = 256
	// claimMax is the largest id of the original, which is an Int, plus 1.
	claimMax = 1 << 31
	// helloBytesMax bounds the fields that the log keeps of a worker, except its identity.
	helloBytesMax = 64 << 10
	// clockMax is how far a worker's clock may be from the leader's. Times are only displayed and order nothing, but a larger difference
	// means that one of the two clocks is wrong.
	clockMax = 5 * time.Minute
)

// handleHello starts the registration of a new session's worker, or rejects it.
func (c *Core) handleHello(in Hello) {
	h := in.Hello
	if reason := c.rejection(h); reason != "" {
		c.reject(in.Session, reason)
		return
	}
	if old := c.machine.ByIdentity(h.GetIdentity()); old != nil {
		w := c.registry.workers[old.ID]
		if w != nil && w.session != nil && !w.lost && w.incarnation != h.GetIncarnation() { // a drained worker is lost
			c.rejectDuplicate(in.Session, w, h, w.sameIdentity())
			return
		}
	}
	if c.claimed(in.Session, h) {
		return
	}
	s := &session{id: in.Session, hello: h, known: map[state.JobID]struct{}{}, sent: c.now, heard: 1}
	c.registry.sessions[in.Session] = s
	c.outbox.send(s, newPing()) // otherwise it looks for another leader while a slow log has its registration
	c.open().Register(registerKey(s.id), &state.WorkerInfo{
		Identity: h.GetIdentity(), Host: h.GetHost(), Address: h.GetAddress(), Version: h.GetVersion(), Slots: h.GetSlots(),
		Memory: h.GetMemory(), Labels: h.GetLabels(),
		Confinement: h.GetConfinement(), Claim: h.GetClaim(), Resources: state.Resources(h.GetResources()),
	})
}

// claimed refuses a worker whose id another one has. That one may be dead, and not known to be yet: then this one takes its place later.
func (c *Core) claimed(id SessionID, h *wire.Hello) bool {
	other := c.machine.Claimant(h.GetClaim())
	if other == nil || other.Identity == h.GetIdentity() || other.Status == state.WorkerDead {
		return false
	}
	reason := fmt.Sprintf("worker %d at %s has the same id %d: two workers cannot share an id; start this one with another WORKER_ID", other.ID,
		cmp.Or(other.Address, other.Host), h.GetClaim()-1)
	if w := c.registry.workers[other.ID]; w != nil && w.session != nil && !w.lost {
		c.rejectDuplicate(id, w, h, reason)
	} else {
		c.effects.Close = append(c.effects.Close, Close{Session: id, Reason: reason})
	}
	return true
}

// rejection returns why a worker is rejected, with the values of both sides and the way out; empty if it is accepted.
func (c *Core) rejection(h *wire.Hello) string {
	theirs, ours := time.UnixMilli(h.GetUnixMs()), c.now
	if reason := protocolMismatch(h, wire.ProtocolMin, wire.Protocol); reason != "" {
		return reason
	}
	switch {
	case !printable(h.GetIdentity()) || !printable(h.GetIncarnation()):
		return fmt.Sprintf("invalid identity %.*q or incarnation %.*q of the worker: want 1 to %d printable characters without blanks; "+
			"remove the file identity in its data directory to get a new one", identityMax, h.GetIdentity(), identityMax, h.GetIncarnation(), identityMax)
	case h.GetSlots() == 0 || h.GetSlots() > wire.SlotsMax:
		return fmt.Sprintf("the worker has %d slots: want 1 to %d; start it with another --slots", h.GetSlots(), wire.SlotsMax)
	case h.GetMemory() > memoryMax:
		return fmt.Sprintf("the worker has %d bytes of memory: want at most %d; start it with another --memory", h.GetMemory(), uint64(memoryMax))
	case len(h.GetLabels()) > labelsMax:
		return fmt.Sprintf("the worker has %d labels: want at most %d; start it with fewer --label", len(h.GetLabels()), labelsMax)
	case invalidResources(h.GetResources()) != nil:
		return fmt.Sprintf("the worker has a wrong resource: %v; start it with another --resource", invalidResources(h.GetResources()))
	case len(h.GetHeld())+len(h.GetStopping()) > wire.HeldMax(h.GetSlots()):
		return fmt.Sprintf("the worker holds %d leases: want at most %d for %d slots; restart it", len(h.GetHeld())+len(h.GetStopping()), wire.HeldMax(h.GetSlots()),
			h.GetSlots())
	case h.GetClaim() > claimMax:
		return fmt.Sprintf("the worker has the id %d: want at most %d; start it with another WORKER_ID", h.GetClaim()-1, claimMax-1)
	case helloBytes(h) > helloBytesMax:
		return fmt.Sprintf("the worker's host, address, version and labels have %d bytes: want at most %d; start it with fewer or shorter --label", helloBytes(h), helloBytesMax)
	case helloText(h) != nil:
		return fmt.Sprintf("invalid registration of the worker: %v", helloText(h))
	case h.GetClusterName() != "" && h.GetClusterName() != c.cluster:
		return fmt.Sprintf("the worker is configured for cluster %q, and this leader is of cluster %q: start the worker with --cluster-name %s, "+
			"or with the address of a leader of %q", h.GetClusterName(), c.cluster, c.cluster, h.GetClusterName())
	case h.GetClusterId() != "" && c.members.ClusterID != "" && h.GetClusterId() != c.members.ClusterID &&
		!slices.Contains(c.members.Former, h.GetClusterId()):
		return fmt.Sprintf("the worker belongs to cluster %s, and this leader to cluster %s, named %q: start the worker with the address "+
			"of a leader of its own cluster, or, to move it here, with another --data-dir", h.GetClusterId(), c.members.ClusterID, c.cluster)
	case h.GetUnixMs() != 0 && theirs.Sub(ours).Abs() > clockMax:
		return fmt.Sprintf("the worker's clock shows %s, and this leader's %s: correct the wrong one (they may be %v apart)",
			theirs.UTC().Format(time.RFC3339), ours.UTC().Format(time.RFC3339), clockMax)
	}
	return ""
}

// helloText returns which text that is shown to users is invalid.
func helloText(h *wire.Hello) error {
	texts := [][2]string{
		{"host", h.GetHost()},
		{"address", h.GetAddress()},
		{"version", h.GetVersion()},
		{"cluster_id", h.GetClusterId()},
		{"cluster_name", h.GetClusterName()},
	}
	for _, c := range h.GetConfinement() {
		texts = append(texts, [2]string{"confinement", c})
	}
	for _, k := range slices.Sorted(maps.Keys(h.GetLabels())) {
		texts = append(texts, [2]string{"the name of a label", k}, [2]string{"a label", h.GetLabels()[k]})
	}
	for _, text := range texts {
		if err := wire.Text(text[0], text[1]); err != nil {
			return err
		}
	}
	return nil
}

// invalidResources returns what is wrong with the resources of a worker.
func invalidResources(resources map[string]uint32) error {
	if len(resources) > state.ResourcesMax {
		return fmt.Errorf("%d kinds: want at most %d", len(resources), state.ResourcesMax)
	}
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		if err := state.CheckResourceName(name); err != nil {
			return err
		}
		if n := resources[name]; n > state.ResourceMax {
			return fmt.Errorf("%d of %s: want at most %d", n, name, state.ResourceMax)
		}
	}
	return nil
}

func helloBytes(h *wire.Hello) int {
	n := len(h.GetHost()) + len(h.GetAddress()) + len(h.GetVersion())
	for k, v := range h.GetLabels() {
		n += len(k) + len(v)
	}
	for _, c := range h.GetConfinement() {
		n += len(c) + 1
	}
	return n
}

// protocolMismatch returns why a worker and a leader that supports the protocols from least to most have none in common; empty if they do.
func protocolMismatch(h *wire.Hello, least, most uint32) string {
	theirLeast, theirMost := max(1, h.GetProtocolMin()), max(1, h.GetProtocol())
	switch {
	case theirMost < least:
		return fmt.Sprintf("the worker, version %q, supports protocol %d at most, and this leader %d at least: upgrade the worker",
			h.GetVersion(), theirMost, least)
	case theirLeast > most:
		return fmt.Sprintf("the worker, version %q, supports protocol %d at least, and this leader %d at most: upgrade the leaders, "+
			"then the workers", h.GetVersion(), theirLeast, most)
	}
	return ""
}

// printable reports whether s has 1 to identityMax visible ASCII characters, so that it fits in a line of text.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= identityMax
}
