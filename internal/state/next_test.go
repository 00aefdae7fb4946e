package state

import (
	"math"
	"strings"
	"testing"
)

// The tables of docs/architecture.md as a reader sees them: a row per status, a column per event, "-" for what cannot be.
const (
	jobTable = `
         | stages_done | tasks_dead | stop_asked | retry_asked | cleanup_done | cleanup_failed | opened | blocked | input_failed
active   | done        | failing    | stopping   | -           | -            | -              | -      | -      | -
stopping | -           | -          | -          | -           | stopped      | stopped        | -      | -      | -
failing  | -           | -          | stopping   | -           | failed       | failed         | -      | -      | -
done     | -           | -          | -          | waiting     | -            | -              | -      | -      | -
failed   | -           | -          | stopping   | waiting     | -            | -              | -      | -      | -
stopped  | -           | -          | -          | waiting     | -            | -              | -      | -      | -
waiting  | -           | -          | stopping   | -           | -            | -              | active | failed | failed`

	taskTable = `
     | attempt_done | attempt_failed | budget_spent | task_retried | output_lost
open | done         | open           | dead         | -            | -
done | -            | -              | -            | -            | open
dead | -            | -              | -            | open         | -`

	workerTable = `
         | alive | dead | draining | removed
alive    | -     | dead | draining | removed
dead     | alive | -    | -        | removed
draining | -     | dead | -        | removed
removed  | -     | -    | -        | -`
)

// rows splits a drawn table into its events, its statuses and its cells.
func rows(table string) (events, statuses []string, cells [][]string) {
	for n, line := range strings.Split(strings.TrimPrefix(table, "\n"), "\n") {
		cols := strings.Split(line, "|")
		for i := range cols {
			cols[i] = strings.ReplaceAll(strings.TrimSpace(cols[i]), "_", " ")
		}
		if n == 0 {
			events = cols[1:]
			continue
		}
		statuses, cells = append(statuses, cols[0]), append(cells, cols[1:])
	}
	return events, statuses, cells
}

func TestJobNext(t *testing.T) {
	events, statuses, cells := rows(jobTable)
	for s, name := range statuses {
		status := JobStatus(s)
		if status.String() != name {
			t.Fatalf("status %d is %q, want %q", s, status, name)
		}
		if ended := name == "done" || name == "failed" || name == "stopped"; status.Ended() != ended {
			t.Errorf("%v.Ended() = %v, want %v", status, status.Ended(), ended)
		}
		for e, eventName := range events {
			event := JobEvent(e)
			if event.String() != eventName {
				t.Fatalf("event %d is %q, want %q", e, event, eventName)
			}
			next, err := status.Next(event)
			got := next.String()
			if err != nil {
				got = "-"
				if next != status {
					t.Errorf("%v.Next(%v) is refused but gives %v", status, event, next)
				}
			}
			if want := cells[s][e]; got != want {
				t.Errorf("%v.Next(%v) = %v, want %v", status, event, got, want)
			}
		}
	}
	// What no version has ever written changes nothing.
	for _, s := range []JobStatus{JobWaiting + 1, math.MaxUint8} {
		for e := range len(events) {
			if next, err := s.Next(JobEvent(e)); err == nil {
				t.Errorf("%v.Next(%v) = %v, want an error", s, JobEvent(e), next)
			}
		}
	}
	if next, err := JobActive.Next(JobEvent(len(events))); err == nil {
		t.Errorf("active.Next(event %d) = %v, want an error", len(events), next)
	}
}

func TestTaskNext(t *testing.T) {
	events, statuses, cells := rows(taskTable)
	for s, name := range statuses {
		status := TaskStatus(s)
		if status.String() != name {
			t.Fatalf("status %d is %q, want %q", s, status, name)
		}
		for e, eventName := range events {
			event := TaskEvent(e)
			if event.String() != eventName {
				t.Fatalf("event %d is %q, want %q", e, event, eventName)
			}
			next, ok := status.Next(event)
			got := next.String()
			if !ok {
				got = "-"
				if next != status {
					t.Errorf("%v.Next(%v) changes nothing but gives %v", status, event, next)
				}
			}
			if want := cells[s][e]; got != want {
				t.Errorf("%v.Next(%v) = %v, want %v", status, event, got, want)
			}
		}
		if next, ok := status.Next(TaskEvent(len(events))); ok || next != status {
			t.Errorf("%v.Next(event %d) = %v, %v, want no change", status, len(events), next, ok)
		}
	}
	if next, ok := (TaskDead + 1).Next(AttemptDone); ok {
		t.Errorf("status 3.Next(attempt done) = %v, want no change", next)
	}
}

func TestWorkerNext(t *testing.T) {
	events, statuses, cells := rows(workerTable)
	for s, name := range statuses {
		from := WorkerStatus(s)
		if from.String() != name || events[s] != name {
			t.Fatalf("status %d is %q, want %q", s, from, name)
		}
		for e := range events {
			to := WorkerStatus(e)
			if got, want := from.Next(to), cells[s][e] != "-"; got != want {
				t.Errorf("%v.Next(%v) = %v, want %v", from, to, got, want)
			}
		}
		if to := WorkerRemoved + 1; from.Next(to) {
			t.Errorf("%v.Next(%v) = true, want false", from, to)
		}
	}
}

// TestRegisterStatus is the other half of a worker's table: what a registration makes of each status.
func TestRegisterStatus(t *testing.T) {
	for _, test := range []struct {
		before, after WorkerStatus
		same          bool // it keeps its number
	}{
		{WorkerAlive, WorkerAlive, true},
		{WorkerDead, WorkerAlive, true},
		{WorkerDraining, WorkerDraining, true},
		{WorkerRemoved, WorkerAlive, false},
	} {
		m, out := latest(), Result{}
		e := NewEntry(1, FeatureLevel)
		e.Register("", &WorkerInfo{Identity: "spren", Host: "a"})
		if test.before != WorkerAlive {
			e.SetWorker("", 1, test.before)
		}
		e.Register("", &WorkerInfo{Identity: "spren", Host: "b"})
		if err := m.Apply(1, e.Data(), &out); err != nil {
			t.Fatal(err)
		}
		w := m.ByIdentity("spren")
		if w == nil {
			t.Fatalf("%v, then registered: the worker is unknown", test.before)
		}
		if w.Status != test.after || (w.ID == 1) != test.same || w.Host != "b" {
			t.Errorf("%v, then registered: worker %d is %v on %q, want %v on b, same number %v",
				test.before, w.ID, w.Status, w.Host, test.after, test.same)
		}
	}
}

// TestBudget says how many failures of each kind a task survives, for budgets of 0, 1, 3, 254, 255 and a million retries.
func TestBudget(t *testing.T) {
	retries := []uint32{0, 1, 3, 254, 255, 1_000_000}
	const never = -1
	for kind, want := range [failureKinds][]int{
		LostOutput:   {4, 4, 4, 4, 4, 4},
		ProgramError: {0, 1, 3, 254, 254, 254},
		Timeout:      {0, 1, 3, 254, 254, 254},
		OutOfMemory:  {0, 1, 3, 254, 254, 254},
		OutputError:  {0, 1, 3, 254, 254, 254},
		BadProgram:   {0, 1, 2, 2, 2, 2},
		BadInput:     {0, 0, 0, 0, 0, 0},
		LostWorker:   {8, 8, 8, 8, 8, 8},
		Preempted:    {never, never, never, never, never, never},
	} {
		for i, r := range retries {
			s, survived := newStage(&StageSpec{Tasks: 1}), 0
			for ; survived < 1000; survived++ {
				if dead, ok := s.fail(0, Failure{Kind: FailureKind(kind)}, r, 0); dead {
					break
				} else if !ok {
					t.Fatalf("%v, %d retries: failure %d was not taken", FailureKind(kind), r, survived)
				}
			}
			if survived == 1000 {
				survived = never
			}
			if survived != want[i] {
				t.Errorf("%v, %d retries: survived %d failures, want %d", FailureKind(kind), r, survived, want[i])
			}
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		LostOutput.String():      "lost_output",
		ProgramError.String():    "program_error",
		Timeout.String():         "timeout",
		OutOfMemory.String():     "out_of_memory",
		LostWorker.String():      "lost_worker",
		Preempted.String():       "preempted",
		BadInput.String():        "bad_input",
		BadProgram.String():      "bad_program",
		OutputError.String():     "output_error",
		failureKinds.String():    "kind 9",
		RoleMap.String():         "map",
		RoleCollect.String():     "collect",
		RoleCommit.String():      "commit",
		RoleReduce.String():      "reduce",
		StageRole(9).String():    "role 9",
		JobStatus(9).String():    "status 9",
		JobEvent(99).String():    "event 99",
		TaskStatus(9).String():   "status 9",
		TaskEvent(9).String():    "event 9",
		WorkerStatus(9).String(): "status 9",
	} {
		if got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}

func TestLease(t *testing.T) {
	for _, test := range []struct {
		term, seq uint64
		want      Lease
	}{
		{0, 1, 1},
		{1, 0, 1 << 40},
		{7, 9, 7<<40 | 9},
		{7, 1<<40 | 9, 7<<40 | 9}, // a sequence never runs into the term
	} {
		l := NewLease(test.term, test.seq)
		if l != test.want || l.Term() != test.term {
			t.Errorf("NewLease(%d, %d) = %d of term %d, want %d", test.term, test.seq, l, l.Term(), test.want)
		}
	}
	if NewLease(2, 0) <= NewLease(1, 1<<40-1) {
		t.Error("the first lease of term 2 is not larger than the last of term 1")
	}
}
