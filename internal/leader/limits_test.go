package leader

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// The lines of many leases are sent in several messages that a worker can take.
func TestWorkIsBounded(t *testing.T) {
	r := newCoreRig(t, 0)
	r.workers = append(r.workers, &busyWorker{session: 1})
	r.step(Hello{1, &wire.Hello{Identity: "w", Incarnation: "i", Slots: 100}})
	lines := state.NewLines()
	for i := range 100 {
		lines.AddLine(append(bytes.Repeat([]byte("x"), 1<<20), byte(i)))
	}
	spec := &state.Spec{Output: "/out", Spool: true, Retries: 9, Settings: map[string]string{"k": string(bytes.Repeat([]byte("x"), 10<<20))}}
	spec.Input, _ = lines.Input()
	r.step(Command{"k", func(e *state.Entry) { e.Submit("", "uid", "", spec) }})
	var messages, leased int
	for range 10 {
		r.step()
		for _, m := range r.sent(1) {
			if size := proto.Size(m); size > EntryBytesMax {
				t.Errorf("a message has %d bytes", size)
			}
			if m.GetWork() != nil {
				messages++
			}
			for _, leases := range m.GetWork().GetLeases() {
				for i, split := range leases.GetSplits() {
					if item := split.GetItem(); uint64(item[len(item)-1]) != leases.GetIndex()[i] {
						t.Fatalf("task %d got the line of task %d", leases.GetIndex()[i], item[len(item)-1])
					}
				}
				leased += len(leases.GetIndex())
			}
		}
	}
	if leased < 100 || messages < 7 || r.machine.Job(1).Status != state.JobDone {
		t.Errorf("%d leases in %d messages, job %v; want 100 in several, and the job done", leased, messages, fmt.Sprint(r.machine.Job(1).Status))
	}
}

// The verdicts on a worker's leases are sent in several messages that it can take.
func TestVerdictsAreBounded(t *testing.T) {
	var o outbox
	s := &session{id: 1}
	w := &worker{session: s}
	const all = 3 * workBytesMax / numberBytes
	for range all / 2 {
		o.stale(w, math.MaxUint64)
	}
	o.committed(w, slices.Repeat([]state.Lease{math.MaxUint64}, 4000)...)
	messages := o.flush(map[SessionID]*session{1: s})
	sent := 0
	for _, m := range messages {
		if size := proto.Size(m.Message); size > workBytesMax+1<<10 {
			t.Errorf("a message has %d bytes", size)
		}
		sent += len(m.Message.GetWork().GetStale()) + len(m.Message.GetWork().GetCommitted())
	}
	if len(messages) < 2 || sent != all/2+4000 {
		t.Errorf("%d verdicts in %d messages, want %d in several", sent, len(messages), all/2+4000)
	}
}
