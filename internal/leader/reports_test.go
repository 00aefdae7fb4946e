package leader

import (
	"math"
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
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
