package leader

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// FuzzSession gives a leader with a job and a worker any messages of another worker, and the same as if they were of that one: the core goes on, its
// invariants hold, its entries and messages stay bounded, and its log can be read again.
func FuzzSession(f *testing.F) {
	seed := func(messages ...*wire.FromWorker) {
		var in []byte
		for _, m := range messages {
			raw, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			in = protowire.AppendBytes(in, raw)
		}
		f.Add(in)
	}
	hello := func(h *wire.Hello) *wire.FromWorker {
		return &wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: h}}
	}
	report := func(r *wire.Report) *wire.FromWorker {
		return &wire.FromWorker{Message: &wire.FromWorker_Report{Report: r}}
	}
	lease := uint64(state.NewLease(1, 1))
	me := &wire.Hello{
		Identity: "me", Incarnation: "x", Slots: wire.SlotsMax, Host: "h", Address: "a:1", Version: "v", Labels: map[string]string{"k": "v"},
		Held: []*wire.Held{{Job: 1, Index: 3, Lease: lease + 3}, {Job: 1, Stage: 1 << 31, Index: 1 << 63, Lease: 1<<64 - 1}, {Job: 7}},
	}
	seed(hello(me), report(&wire.Report{Heartbeat: true, Running: []uint64{lease, 1<<64 - 1}}))
	seed(hello(me), hello(me), report(&wire.Report{Finished: []*wire.Finished{{
		Job: 1, Index: []uint64{0, 1, 1 << 60}, Lease: []uint64{lease, lease + 1, lease}, Size: []uint64{1 << 48, 1 << 48, 0},
		Records: []uint64{1 << 48, 0, 1}, Micros: []uint64{1 << 48, 1, 2}, AgeMs: []uint64{1 << 48, 0, 0},
	}}}), report(&wire.Report{Lost: []*wire.OutputLost{{Job: 1, Index: 0, Lease: lease}, {Job: 1, Stage: 9, Index: 1 << 62}}}))
	seed(report(&wire.Report{Failed: []*wire.Failure{
		{Job: 1, Index: 0, Lease: lease, Kind: 99, Message: string(make([]byte, 5000))}, {Job: 1, Index: 1, Lease: lease + 1, Kind: -1},
	}, Returned: []uint64{lease + 2, 0, 1}, Draining: true}))
	seed(&wire.FromWorker{Message: &wire.FromWorker_Goodbye{Goodbye: &wire.Goodbye{}}}, hello(&wire.Hello{Identity: "0", Incarnation: "y", Slots: 1}))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newCoreRig(t, 1)
		own := r.workers[0].session
		r.submit(1, 20)
		session := own + 1
		for len(in) > 0 {
			raw, n := protowire.ConsumeBytes(in)
			m := &wire.FromWorker{}
			if n < 0 || proto.Unmarshal(raw, m) != nil {
				break
			}
			in = in[n:]
			switch m := m.GetMessage().(type) {
			case *wire.FromWorker_Hello:
				session++
				r.step(Hello{session, m.Hello})
				r.step() // it is registered
			case *wire.FromWorker_Report:
				if m.Report.Check() == nil { // as the node does
					r.step(Report{session, m.Report}, Report{own, m.Report})
				}
			case *wire.FromWorker_Goodbye:
				r.step(Drained{session})
			}
			if err := r.core.Check(); err != nil {
				t.Fatal(err)
			}
		}
		for range 50 {
			r.step()
		}
		if err := r.core.Check(); err != nil {
			t.Fatal(err)
		}
		if n := len(r.core.registry.sessions); n > int(session) {
			t.Errorf("%d sessions", n)
		}
		if r.core.pipeline.inFlight > inFlightMax {
			t.Errorf("%d entries in flight, want at most %d", r.core.pipeline.inFlight, inFlightMax)
		}
		var snapshot bytes.Buffer
		if _, err := r.machine.Snapshot().WriteTo(&snapshot); err != nil {
			t.Fatal(err)
		}
		if _, err := state.Restore(&snapshot); err != nil {
			t.Fatalf("the state cannot be read again: %v", err)
		}
	})
}
