package view

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// fakeSource is a node that leads, without anything around it.
type fakeSource struct {
	machine    *state.Machine
	core       *leader.Core
	controller *leader.Controller // of machine
}

func (s *fakeSource) Do(_ context.Context, f func(*leader.Controller)) error {
	f(s.controller)
	return nil
}

func (s *fakeSource) DoLeading(_ context.Context, f func(*state.Machine, *leader.Core)) error {
	f(s.machine, s.core)
	return nil
}

func (s *fakeSource) WritesRefused() string   { return "" }
func (s *fakeSource) Leaders() api.LeaderList { return api.LeaderList{} }

// failedJob is a leader whose job 1 has so many tasks, of which all but the last are dead.
func failedJob(t *testing.T, tasks uint64) *Reader {
	t.Helper()
	m := state.New()
	e := state.NewEntry(1, 0)
	spec := &state.Spec{Name: "x", Output: "/x", Spool: true}
	spec.Input, _ = state.RangeInput(1, int64(tasks))
	e.Submit("", "u", "", spec)
	var out state.Result
	index := uint64(0)
	apply := func() {
		index++
		if err := m.Apply(index, e.Data(), &out); err != nil {
			t.Fatal(err)
		}
		e = state.NewEntry(1, 0)
	}
	apply()
	for i := range tasks - 1 {
		e.Failed(1, 0, i, state.Failure{Kind: state.BadInput, Message: "not a number", Worker: 1, Lease: state.NewLease(1, i+1)}, nil)
		if e.Items == 4000 {
			apply()
		}
	}
	apply()
	if dead := m.Job(1).Stages[0].Dead; dead != tasks-1 {
		t.Fatalf("%d tasks are dead, want %d", dead, tasks-1)
	}
	core := leader.NewCore(leader.CoreConfig{Machine: m, Term: 1, Now: time.Unix(1, 0)})
	return NewReader(NewViews(), &fakeSource{machine: m, core: core}, nil, "")
}

// What is done in the goroutine that owns the state is bounded, however many tasks have failed.
func TestMillionFailedTasks(t *testing.T) {
	const tasks = 1_000_000
	r := failedJob(t, tasks)
	job := r.source.(*fakeSource).machine.Job(1)
	core := r.source.(*fakeSource).core

	for _, c := range []struct {
		status  string
		visited int // at most
		rows    int
	}{
		{api.TaskDead, 101, 100},
		{"", 101, 100},
		{api.TaskRunning, 0, 0},
		{api.TaskDone, scanMax, 0},
	} {
		scan := taskScan{query: api.TaskQuery{Status: c.status, Limit: 100}}
		scan.fill(job, core)
		if scan.visited > c.visited || len(scan.rows) != c.rows {
			t.Errorf("a page of tasks of status %q visits %d tasks for %d rows, want at most %d for %d", c.status, scan.visited, len(scan.rows), c.visited, c.rows)
		}
	}

	var explanation api.Explanation
	if bytes := allocated(func() {
		var err error
		if explanation, err = r.Explain(t.Context(), 1, "", 0); err != nil {
			t.Error(err)
		}
	}); bytes > 256<<10 {
		t.Errorf("Explain() allocates %d bytes", bytes)
	}
	want := fmt.Sprintf("and more than %d more tasks have failed at least once", scanMax-explainTasks)
	if !slices.Contains(explanation.Reasons, want) || !slices.ContainsFunc(explanation.Reasons, func(s string) bool { return strings.Contains(s, "not a number") }) {
		t.Errorf("Explain() = %q, want it to name some failures and %q", explanation.Reasons, want)
	}

	// A page goes on where the last one ended: from the front and, with few bytes, at the end.
	cursor := fmt.Sprintf("0/%d", tasks-3)
	if bytes := allocated(func() {
		page, err := r.Tasks(t.Context(), 1, api.TaskQuery{Status: api.TaskDead, Limit: 100, Cursor: cursor})
		if err != nil || len(page.Tasks) != 2 || page.Tasks[0].Index != tasks-3 || page.Next != "" {
			t.Errorf("Tasks(%s) = %d tasks, next %q, %v; want the last two dead ones", cursor, len(page.Tasks), page.Next, err)
		}
	}); bytes > 256<<10 {
		t.Errorf("Tasks() allocates %d bytes", bytes)
	}
}

// Scans that find nothing end with a cursor, until all was visited.
func TestScanGoesOnByCursor(t *testing.T) {
	r := failedJob(t, scanMax+10)
	q := api.TaskQuery{Status: api.TaskDone, Limit: 10}
	for _, next := range []string{fmt.Sprintf("0/%d", scanMax), ""} {
		page, err := r.Tasks(t.Context(), 1, q)
		if err != nil || len(page.Tasks) != 0 || page.Next != next {
			t.Fatalf("Tasks(%q) = %d tasks, next %q, %v; want none, next %q", q.Cursor, len(page.Tasks), page.Next, err, next)
		}
		q.Cursor = page.Next
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestSeconds checks that a run time of 0 ms differs from one that is not known.
func TestSeconds(t *testing.T) {
	job := &state.Job{ID: 1, Spec: &state.Spec{Stages: []state.StageSpec{{Name: "map"}}}}
	for worker, known := range map[state.WorkerID]bool{0: false, 3: true} {
		task := publicTask(job, &taskRow{out: state.Output{Run: state.Run{Worker: worker}}}, nil, false)
		if (task.Seconds != nil) != known {
			t.Errorf("publicTask() of a task that worker %d ran = %+v, want seconds: %v", worker, task, known)
		}
	}
}
