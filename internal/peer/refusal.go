package peer

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// RefusedError is why other leaders refuse this node for good: asking them again does not help.
type RefusedError struct {
	Address string // of the leader that refuses
	Reason  string // both sides' values and the way out
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the leader at %s refuses this node: %s", e.Address, e.Reason)
}

// refusalError encodes a refusal as a call's status.
func refusalError(r *peerpb.Refusal) error {
	s := status.New(codes.FailedPrecondition, r.GetReason())
	if detailed, err := s.WithDetails(r); err == nil {
		s = detailed
	}
	return s.Err()
}

// refusalOf returns the refusal that a call ended with; nil: it ended otherwise.
func refusalOf(err error) *peerpb.Refusal {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.FailedPrecondition {
		return nil
	}
	for _, d := range s.Details() {
		if r, ok := d.(*peerpb.Refusal); ok {
			r.Reason = wire.FailureMessage(r.GetReason()) // cut
			return r
		}
	}
	return &peerpb.Refusal{Reason: wire.FailureMessage(s.Message())} // of a version that gives no details
}

// refused handles a member's refusal of this node.
func (t *Transport) refused(l *link, address string, refusal *peerpb.Refusal) {
	if l.isNew(refusal.GetReason()) {
		t.log.Warn("a leader refuses this node", "peer", l.id, "address", address, "reason", refusal.GetReason())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	final := refusal.GetFinal()
	switch refusal.GetKind() { //nolint:exhaustive // the others mean what Final says
	case peerpb.Refusal_RECOVERED:
		// If the other members still have a leader, the recovered one is the exception.
		final = final && t.replica.Status().LeaderID == 0
	case peerpb.Refusal_OTHER_CLUSTER:
		// Another cluster at one member's address may be that node's mistake. If it is so at all of them, and always was, it is this node's.
		t.wrongCluster[l.id] = true
		final = !t.answered && len(t.wrongCluster) == len(t.links)
	}
	if final {
		t.fail(&RefusedError{Address: address, Reason: refusal.GetReason()})
	}
}

// logRefusal logs that this node has refused a caller, once per reason.
func (t *Transport) logRefusal(caller string, r *peerpb.Refusal) {
	caller = caller[:min(len(caller), wire.TextBytesMax)]
	t.mu.Lock()
	again := t.refusals[caller] == r.GetReason()
	if len(t.refusals) >= refusalsMax {
		clear(t.refusals)
	}
	t.refusals[caller] = r.GetReason()
	t.mu.Unlock()
	if again {
		return
	}
	t.log.Warn("a node was refused", "caller", caller, "reason", r.GetReason())
}
