package state

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestHistory fills the history several times over. One machine goes on from snapshot to snapshot; both must tell the same.
func TestHistory(t *testing.T) {
	m, twin := latest(), latest()
	var all []Fact
	var kept []Fact // as it was read once, and must stay
	for round := range 5 {
		for i := range 500 {
			e := NewEntry(int64(round), FeatureLevel)
			for k := range 1 + i%8 {
				e.Register("", &WorkerInfo{Identity: fmt.Sprint(round, "/", i, "/", k), Host: "h"})
			}
			mustApply(t, m, e)
			mustApply(t, twin, e)
			now, ok := m.FactsAfter(Position{Index: m.Index() - 1, Seq: 99})
			if !ok || len(now) != 1+i%8 {
				t.Fatalf("%d facts after the entry before, %v, want %d", len(now), ok, 1+i%8)
			}
			all = append(all, now...)
		}
		if round == 2 {
			kept, _ = m.FactsAfter(all[len(all)-1000].Position)
		}
		var err error
		if twin, err = Restore(bytes.NewReader(snapshotBytes(t, twin.Snapshot()))); err != nil {
			t.Fatal(err)
		}
		checkHistory(t, m, all)
		checkHistory(t, twin, all)
	}
	if want := all[slices.IndexFunc(all, func(f Fact) bool { return f.Position == kept[0].Position }):]; !reflect.DeepEqual(kept, want[:999]) {
		t.Error("facts that were read have changed since")
	}
}

// checkHistory asks m for the facts after every position that there was, and some that there was not.
func checkHistory(t *testing.T, m *Machine, all []Fact) {
	t.Helper()
	if got, ok := m.FactsAfter(Position{}); ok != (len(all) <= historyMax) || ok && len(got) != len(all) {
		t.Fatalf("after the beginning: %d of %d facts, %v", len(got), len(all), ok)
	}
	for i := range all {
		got, ok := m.FactsAfter(all[i].Position)
		if want := len(all)-i-1 <= historyMax; ok != want {
			t.Fatalf("after fact %d of %d: %v, want %v", i, len(all), ok, want)
		}
		if ok && (len(got) != len(all)-i-1 || len(got) > 0 && !reflect.DeepEqual(got[0], all[i+1])) {
			t.Fatalf("after fact %d of %d: %d facts", i, len(all), len(got))
		}
	}
	if got, ok := m.FactsAfter(Position{Index: m.Index() + 1}); !ok || len(got) != 0 {
		t.Errorf("after what is to come: %d facts, %v, want none", len(got), ok)
	}
}

// TestHistoryIsBounded: whatever happens, the history takes little room, and the deaths of one job do not push out the rest.
func TestHistoryIsBounded(t *testing.T) {
	const tasks = 300
	m := latest()
	e := NewEntry(1, FeatureLevel)
	e.Submit("", "u", "", &Spec{Output: "/o", Name: "first", Spool: true, Input: Input{Kind: InputRange, Tasks: tasks}})
	for range 2 {
		for i := range uint64(tasks) {
			e.Failed(1, 0, i, Failure{Kind: BadInput, Worker: 7, Message: strings.Repeat("\xff", 100) + strings.Repeat("€", 1000)}, nil)
		}
		e.Retry("", 1)
	}
	mustApply(t, m, e)
	facts, ok := m.FactsAfter(Position{})
	died := slices.DeleteFunc(slices.Clone(facts), func(f Fact) bool { return f.Kind != TaskDied })
	if !ok || len(died) != 2*deathsMax || facts[0].Detail != "first" {
		t.Errorf("%d deaths in %d facts, want %d: %d for each run", len(died), len(facts), 2*deathsMax, deathsMax)
	}
	for i := range died {
		f := &died[i]
		text := f.Detail[strings.Index(f.Detail, "€"):]
		if f.Task != uint64(i%deathsMax) || f.Worker != 7 || f.Stage != "map" || len(f.Detail) > detailMax || !utf8.ValidString(text) {
			t.Fatalf("death %d is %+v", i, *f)
		}
	}
	if last := facts[len(facts)-1]; last.Kind != StageStarted || last.JobStatus != JobActive {
		t.Errorf("the last fact is %+v", last)
	}
	for i := range facts {
		if facts[i].Seq != uint32(i) || facts[i].Index != 1 {
			t.Fatalf("fact %d stands at %+v", i, facts[i].Position)
		}
	}
}
