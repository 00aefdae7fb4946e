package peer

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
)

// RefusedError says why other leaders will not have this node as it is. Asking them again is of no use.
type RefusedError struct {
	Address string // of the leader that refuses
	Reason  string // for people: both sides' values and the way out
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the leader at %s refuses this node: %s", e.Address, e.Reason)
}

// refusalError is how a refusal goes over the wire.
func refusalError(r *peerpb.Refusal) error {
	s := status.New(codes.FailedPrecondition, r.GetReason())
	if detailed, err := s.WithDetails(r); err == nil {
		s = detailed
	}
	return s.Err()
}

// refusalOf is the refusal that a call ended with; nil: it ended otherwise.
func refusalOf(err error) *peerpb.Refusal {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.FailedPrecondition {
		return nil
	}
	for _, d := range s.Details() {
		if r, ok := d.(*peerpb.Refusal); ok {
			return r
		}
	}
	return &peerpb.Refusal{Reason: s.Message()} // of a version that gives no details
}

// refused deals with a member's refusal of this node.
func (t *Transport) refused(l *link, address string, refusal *peerpb.Refusal) {
	if l.say(refusal.GetReason()) {
		t.log.Warn("a leader refuses this node", "peer", l.id, "address", address, "reason", refusal.GetReason())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	final := refusal.GetFinal()
	switch refusal.GetKind() { //nolint:exhaustive // the others mean what Final says
	case peerpb.Refusal_RECOVERED:
		// Where the members still have a leader among them, the one that was recovered is the odd one out.
		final = final && t.replica.Status().LeaderID == 0
	case peerpb.Refusal_OTHER_CLUSTER:
		// One stranger at a member's address may be the stranger's mistake. When all are, and were from the start, it is this node's.
		t.strangers[l.id] = true
		final = !t.met && len(t.strangers) == len(t.links)
	}
	if final {
		t.fail(&RefusedError{Address: address, Reason: refusal.GetReason()})
	}
}

// logRefusal logs that this node has refused a caller, once for each reason.
func (t *Transport) logRefusal(caller string, r *peerpb.Refusal) {
	t.mu.Lock()
	again := t.told[caller] == r.GetReason()
	if len(t.told) >= toldMax {
		clear(t.told)
	}
	t.told[caller] = r.GetReason()
	t.mu.Unlock()
	if again {
		return
	}
	t.log.Warn("a node was refused", "caller", caller, "reason", r.GetReason())
}
