package core

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// FuzzReceive passes any messages to the core, and runs the leases in its slots.
func FuzzReceive(f *testing.F) {
	seed := func(m *wire.ToWorker) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, raw)
	}
	seed(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{Worker: 1, Revoked: []uint64{100, 102}, Drain: true}}})
	seed(&wire.ToWorker{Message: &wire.ToWorker_Work{Work: &wire.Work{
		Jobs: []*wire.Job{jobMessage(testJob)}, Leases: []*wire.Leases{{Job: testJob, FirstLease: 1<<64 - 2, Index: []uint64{0, 1, 2, 3, 4}}},
	}}})
	seed(&wire.ToWorker{Message: &wire.ToWorker_Work{Work: &wire.Work{
		Stale: []uint64{101}, Ended: []uint64{testJob}, Committed: []uint64{100}, Leases: []*wire.Leases{{Job: testJob, Stage: 1 << 31}},
	}}})
	seed(&wire.ToWorker{Message: &wire.ToWorker_Drain{Drain: &wire.Drain{StopRunning: true}}})
	seed(&wire.ToWorker{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c := newTest(t, 2)
		c.welcome()
		c.lease(100, 5)
		c.run(0, Result{File: true})
		for _, raw := range [][]byte{a, b} {
			var m wire.ToWorker
			if proto.Unmarshal(raw, &m) == nil {
				c.receive(&m)
			}
		}
		for slot := range 2 {
			if ch := c.starts[slot]; ch != nil {
				for i, ok := ch.Claim(); ok; i, ok = ch.Claim() {
					ch.Finish(i, Result{})
				}
				c.idle(slot)
			}
		}
		c.later(time.Second)
		for _, n := range c.core.ledger.counts {
			if n < 0 {
				t.Fatalf("counts = %v", c.core.ledger.counts)
			}
		}
	})
}
