package leader

import (
	"testing"

	"github.com/bridgefour/bridgefour/internal/sched"
)

func TestExitBook(t *testing.T) {
	tasks := make([]*lease, 4)
	for i := range tasks {
		tasks[i] = &lease{taskKey: taskKey{sched.Key{Job: 1}, uint64(i)}}
	}
	b := exitBook{}
	for _, step := range []struct {
		running []*lease
		cause   *lease
	}{
		{tasks[:2], nil},
		{tasks[:3], nil}, // tasks 0 and 1 have run both times, and run apart from here on
		{tasks[1:4], tasks[1]},
		{tasks[:2], nil}, // they should not have run together
		{tasks[3:], nil},
		{[]*lease{tasks[0], tasks[2]}, nil},
		{nil, nil},
	} {
		if got := b.add(step.running); got != step.cause {
			t.Errorf("%v is the cause, want %v", got, step.cause)
		}
	}
	for _, l := range tasks {
		b.done(l.taskKey)
		b.done(l.taskKey)
	}
	if len(b) > 0 {
		t.Errorf("%v is left", b)
	}
}
