package leader

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestRunIsRecorded: a report says how long an attempt ran, and how long ago it ended; the log keeps when it started.
func TestRunIsRecorded(t *testing.T) {
	s := newStory(t)
	for _, words := range [][]string{
		{"hello", "s1", "alice", "slots=3"},
		{"run", "10ms"},
		{"submit", "j", "tasks=3"},
		{"run", "1790ms"},
		{"finish", "s1", "1/0/0", "age=500"},
		{"finish", "s1", "1/0/1"},
		{"finish", "s1", "1/0/2", "age=4500"}, // it cannot have started before the job was created
		{"run", "10ms"},
	} {
		s.command(words)
	}
	job := s.machine.Job(1)
	for task, want := range []state.Run{
		{Worker: 1, Started: uint32(1800 - job.Created - 1500), Millis: 1000},
		{Worker: 1, Started: uint32(1800 - job.Created - 1000), Millis: 1000},
		{Worker: 1, Started: 0, Millis: 1000},
	} {
		if out, ok := job.Stages[0].Output(uint64(task)); !ok || out.Run != want {
			t.Errorf("task %d ran %+v, %v, want %+v", task, out.Run, ok, want)
		}
	}
	if got := saturate(math.MaxUint32 + 1); got != math.MaxUint32 {
		t.Errorf("saturate(2^32) = %d", got)
	}
}

// TestLostOutputAtLevel0: a log that cannot open the task again charges the attempt that has read its output, so that the job ends.
func TestLostOutputAtLevel0(t *testing.T) {
	r := newCoreRig(t, 0)
	const session = 1
	r.step(Hello{session, &wire.Hello{Identity: "x", Incarnation: "x", Slots: 1}})
	spec := &state.Spec{Output: "/out", Retries: 2}
	spec.Input, _ = state.RangeInput(1, 1)
	r.step(Command{"k", func(e *state.Entry) { e.Submit("", "uid", "", spec) }})
	commits, won := 0, uint64(0)
	for range 20_000 {
		var reports []Input
		for _, m := range r.last.Send {
			for _, l := range m.Message.GetWork().GetLeases() {
				report := &wire.Report{Returned: []uint64{l.GetFirstLease()}}
				if l.GetStage() == 0 {
					won = l.GetFirstLease()
					report = &wire.Report{Finished: []*wire.Finished{{Job: 1, Index: []uint64{0}, Lease: []uint64{won}}}}
				} else {
					commits++
					report.Lost = []*wire.OutputLost{{Job: 1, Lease: won, Message: "gone"}}
				}
				reports = append(reports, Report{session, report})
			}
		}
		if reports = append(reports, Report{session, &wire.Report{Heartbeat: true}}); r.machine.Job(1) != nil && r.machine.Job(1).Status.Ended() {
			break
		}
		r.now = r.now.Add(10 * time.Millisecond) // the delay of retries
		r.step(reports...)
	}
	if job := r.machine.Job(1); job.Status != state.JobFailed || commits != 3 || !strings.HasSuffix(job.Error, "gone") {
		t.Errorf("job %v after %d commits: %s", job.Status, commits, job.Error)
	}
}
