package view

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

func TestMemoryIsASize(t *testing.T) {
	spec := &state.Spec{SlotsPerTask: 1, Memory: 2 << 30}
	if got, want := needed(spec), "1 slot and 2.0 GiB of memory"; got != want {
		t.Errorf("needed() = %q, want %q", got, want)
	}
	small := &state.Worker{WorkerInfo: state.WorkerInfo{Slots: 1, Memory: 1 << 30}}
	if got, want := lacks(spec, small), []string{"an attempt needs 2.0 GiB of memory, it has 1.0 GiB"}; !slices.Equal(got, want) {
		t.Errorf("lacks() = %q, want %q", got, want)
	}
}

// TestLockHolderOfAnotherUser: an explanation names the user alone, as the list of locks does.
func TestLockHolderOfAnotherUser(t *testing.T) {
	m := state.New()
	e := state.NewEntry(2, 2)
	e.Lock("", state.LockOp{User: "ann", Holder: "secret", Names: []state.LockName{{Name: "n"}}, TTLMS: 30_000})
	e.Submit("", "u", "", &state.Spec{User: "bob", Spool: true, Input: state.Input{Kind: state.InputNone, Tasks: 1}, Locks: []state.LockName{{Name: "n"}}})
	var out state.Result
	for i, data := range [][]byte{state.RaiseLevel(1, 1, "").Data(), state.RaiseLevel(1, 2, "").Data(), e.Data()} {
		if err := m.Apply(uint64(i+1), data, &out); err != nil {
			t.Fatal(err)
		}
	}
	x := &explainer{machine: m, job: m.Job(1), now: time.Unix(1, 0)}
	x.locks()
	if want := "it waits for an exclusive lock on n, held by user ann"; len(x.out.Reasons) != 1 || x.out.Reasons[0] != want {
		t.Errorf("reasons %q, want %q", x.out.Reasons, want)
	}
}

// TestEndedHolder: what a job waits for that has ended, and what ends the wait.
func TestEndedHolder(t *testing.T) {
	stopping := api.LockWorker{Worker: 2, Status: api.LockWorkerStopping}
	lost := api.LockWorker{Worker: 3, Status: api.LockWorkerLost, LeftMillis: 64_000}
	for _, test := range []struct {
		h            api.LockHolder
		text, advice string
	}{
		{api.LockHolder{}, "its last attempts may still run", ""}, // a leader that does not lead knows no more
		{api.LockHolder{Workers: []api.LockWorker{stopping}}, "its last attempts are being stopped on worker 2", ""},
		{
			api.LockHolder{Workers: []api.LockWorker{lost}},
			"attempts of it may run on worker 3 (lost) for 64 s more at most",
			"bridgefour workers remove 3 ends the wait for this worker, if its machine is gone",
		},
		{
			api.LockHolder{Workers: []api.LockWorker{{Worker: 1, Status: api.LockWorkerRemoved, LeftMillis: 1}, stopping, lost, {Worker: 4, Status: api.LockWorkerLost}}, MoreWorkers: 7},
			"its last attempts are being stopped on worker 2, and attempts of it may run on worker 1 (removed), worker 3 (lost), worker 4 (lost), 7 more for 64 s more at most",
			"bridgefour workers remove N ends the wait for a lost worker (3, 4), if its machine is gone",
		},
		{api.LockHolder{Workers: []api.LockWorker{stopping}, MoreWorkers: 7}, "its last attempts are being stopped on worker 2, 7 more", ""},
	} {
		if text, advice := EndedHolder(&test.h); text != test.text || advice != test.advice {
			t.Errorf("EndedHolder(%+v) = %q, %q; want %q, %q", test.h, text, advice, test.text, test.advice)
		}
	}
}

// TestLostWithWorkers: a task that was lost with several workers may be the cause; one that has succeeded since is not.
func TestLostWithWorkers(t *testing.T) {
	m := state.New()
	e := state.NewEntry(1, 0)
	spec := &state.Spec{Spool: true, Output: "/x"}
	spec.Input, _ = state.RangeInput(1, 2)
	e.Submit("", "u", "", spec)
	for i := range uint64(2) {
		for n := range uint64(2) {
			e.Failed(1, 0, i, state.Failure{Kind: state.LostWorker, Message: "gone", Worker: 1, Lease: state.NewLease(1, 2*i+n+1)}, nil)
		}
	}
	e.Done(2, 1, 0, []state.Completion{{Index: 0, Lease: state.NewLease(1, 9)}})
	if err := m.Apply(1, e.Data(), &state.Result{}); err != nil {
		t.Fatal(err)
	}
	advice := func() []string {
		x := &explainer{machine: m, job: m.Job(1), now: time.Unix(1, 0)}
		x.failures(m.Job(1).Stages[0])
		return x.out.Advice
	}
	if got := advice(); len(got) != 1 || !strings.HasPrefix(got[0], "find out why one task has lost its worker 2 times") {
		t.Errorf("advice %q, want to find out why workers were lost", got)
	}
	e = state.NewEntry(2, 0)
	e.Done(2, 1, 0, []state.Completion{{Index: 1, Lease: state.NewLease(1, 10)}})
	if err := m.Apply(2, e.Data(), &state.Result{}); err != nil {
		t.Fatal(err)
	}
	if got := advice(); len(got) > 0 {
		t.Errorf("advice %q, want none: all tasks are done", got)
	}
}

// TestExplainStopped: the tasks that have not run are those of a job that was stopped by --max-fails, or by its program.
func TestExplainStopped(t *testing.T) {
	for want, test := range map[string]struct {
		most   *state.FailLimit
		cancel bool
	}{
		"stage map: 1 of 3 tasks dead, 2 not run to their end because of --max-fails 0":                {most: &state.FailLimit{}},
		"stage map: 1 of 3 tasks dead, 2 not run to their end because its program has stopped the job": {cancel: true},
	} {
		m := state.New()
		e := state.NewEntry(1, state.FeatureLevel)
		spec := &state.Spec{Output: "/x", MaxFails: test.most}
		spec.Input, _ = state.RangeInput(1, 3)
		e.Submit("", "u", "", spec)
		e.Failed(1, 0, 0, state.Failure{Kind: state.BadInput, Message: "no", Worker: 1, Lease: state.NewLease(1, 1), Cancel: test.cancel}, nil)
		for i, data := range [][]byte{state.RaiseLevel(0, state.FeatureLevel, "").Data(), e.Data()} {
			if err := m.Apply(uint64(i+1), data, &state.Result{}); err != nil {
				t.Fatal(err)
			}
		}
		x := &explainer{machine: m, job: m.Job(1), now: time.Unix(1, 0)}
		x.failed()
		if len(x.out.Reasons) == 0 || x.out.Reasons[0] != want {
			t.Errorf("a %v job is explained by %q, want %q", x.job.Status, x.out.Reasons, want)
		}
	}
}

// TestExplainDone: the tasks of all stages are counted, and none that commits.
func TestExplainDone(t *testing.T) {
	for want, stages := range map[string][]state.StageSpec{
		"all 4 tasks are done; the output is in /x": {{Name: "map", Tasks: 3}, {Name: "total", Tasks: 1}},
		"its task is done; the output is in /x":     {{Name: "map", Tasks: 1}},
	} {
		m := state.New()
		e := state.NewEntry(1, state.FeatureLevel)
		spec := &state.Spec{Output: "/x", Stages: state.LinePlan(stages, state.RoleCommit)}
		spec.Input, _ = state.RangeInput(1, int64(stages[0].Tasks))
		e.Submit("", "u", "", spec)
		lease := uint64(0)
		for i, s := range spec.Stages {
			for task := range s.Tasks {
				lease++
				e.Done(1, 1, uint32(i), []state.Completion{{Index: task, Lease: state.NewLease(1, lease)}})
			}
		}
		for i, data := range [][]byte{state.RaiseLevel(0, state.FeatureLevel, "").Data(), e.Data()} {
			if err := m.Apply(uint64(i+1), data, &state.Result{}); err != nil {
				t.Fatal(err)
			}
		}
		x := &explainer{machine: m, job: m.Job(1)}
		x.done()
		if x.job.Status != state.JobDone || len(x.out.Reasons) != 1 || x.out.Reasons[0] != want {
			t.Errorf("a %v job is explained by %q, want %q", x.job.Status, x.out.Reasons, want)
		}
	}
}
