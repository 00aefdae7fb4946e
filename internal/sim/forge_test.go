package sim

import (
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// forge has a worker report the end of leases that it does not hold: the newest ones of other workers, and one that was never granted. The
// jobs that they belong to must not change. Its reports on its own leases are true: what they say cannot be checked.
func (s *simWorker) forge(how int) {
	if s.link == nil {
		return
	}
	const others, never = 8, 1 << 20
	term := uint64(0)
	for t := range s.w.oracle.leases {
		term = max(term, t)
	}
	last := s.w.oracle.book(term).last
	for seq := last + never; seq > 0 && seq+others > last; seq = min(seq-1, last) {
		lease := state.NewLease(term, seq)
		a := s.w.oracle.attempt(lease)
		if a.isOf(s) {
			continue
		}
		if a == nil {
			a = &attempt{job: 1}
		}
		r := &wire.Report{}
		switch how {
		case 0:
			r.Finished = []*wire.Finished{{Job: uint64(a.job), Stage: a.stage, Index: []uint64{a.task}, Lease: []uint64{uint64(lease)}, Size: []uint64{8}}}
		case 1:
			r.Failed = []*wire.Failure{{Job: uint64(a.job), Stage: a.stage, Index: a.task, Lease: uint64(lease), Kind: wire.FailureKind_BAD_INPUT}}
		default:
			r.Returned = []uint64{uint64(lease)}
		}
		s.link.send(&wire.FromWorker{Message: &wire.FromWorker_Report{Report: r}})
	}
}
