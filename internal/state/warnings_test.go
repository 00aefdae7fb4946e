package state

import (
	"fmt"
	"slices"
	"testing"
)

// TestWarnings: the warnings of winners are the job's, once each, until their task is no longer done.
func TestWarnings(t *testing.T) {
	m := failing(t, FeatureLevel, 0)
	apply := func(fill func(e *Entry)) {
		t.Helper()
		e := NewEntry(2, m.Level())
		fill(e)
		if err := m.Apply(m.Index()+1, e.Data(), &Result{}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, texts ...string) {
		t.Helper()
		for _, m := range []*Machine{m, restore(t, m)} {
			var got []string
			for _, w := range m.Job(1).Warnings {
				got = append(got, fmt.Sprintf("%d/%d %s", w.Stage, w.Task, w.Text))
			}
			if !slices.Equal(got, texts) {
				t.Errorf("%s: warnings %q, want %q", when, got, texts)
			}
		}
	}
	apply(func(e *Entry) {
		e.Submit("", "uid", "", &Spec{Output: "/out", Input: Input{Kind: InputRange, Tasks: 100}})
		e.Done(1, 1, 0, []Completion{{Index: 0, Lease: 10}, {Index: 1, Lease: 11}}, Warning{Task: 0, Text: "a"}, Warning{Task: 1, Text: "a"}, Warning{Task: 5, Text: "of no winner"})
		e.Done(1, 1, 0, []Completion{{Index: 0, Lease: 12}}, Warning{Task: 0, Text: "of a loser"})
		e.Done(1, 1, 0, []Completion{{Index: 2, Lease: 13}}, Warning{Task: 2, Text: "b"})
	})
	want("after winners and a loser", "0/0 a", "0/2 b")
	apply(func(e *Entry) { e.OutputLost(1, 0, 0, 10, 1, "gone") })
	want("after the loss of an output", "0/2 b")
	apply(func(e *Entry) {
		for i := range uint64(20) {
			e.Done(1, 1, 0, []Completion{{Index: 10 + i, Lease: 20}}, Warning{Task: 10 + i, Text: fmt.Sprint(i)})
		}
	})
	want("after too many", "0/2 b", "0/10 0", "0/11 1", "0/12 2", "0/13 3", "0/14 4", "0/15 5", "0/16 6")
	apply(func(e *Entry) {
		e.Fence = 30
		e.Stop("", 1)
		e.Done(1, 1, 1, []Completion{{Lease: 31}})
		e.Retry("", 1)
	})
	want("after a stop and a retry")
}

func TestWarningsNeedTheLevel(t *testing.T) {
	m := failing(t, 1, 1)
	e := NewEntry(2, 1)
	e.Done(1, 1, 0, []Completion{{Lease: 9}}, Warning{Text: "a"})
	if err := m.Apply(m.Index()+1, e.Data(), &Result{}); err != nil {
		t.Fatal(err)
	}
	if got := m.Job(1).Warnings; got != nil {
		t.Errorf("warnings at level 1: %v, want none", got)
	}
}
