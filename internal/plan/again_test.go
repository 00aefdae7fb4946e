package plan_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
)

// TestAgain changes files after they were planned, each cut at 10 bytes.
func TestAgain(t *testing.T) {
	write := func(path, text string) func() error {
		return func() error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	replace := func(path, text string) func() error {
		return func() error { return errors.Join(write(path+".new", text)(), os.Rename(path+".new", path)) }
	}
	dir := t.TempDir()
	short, long, packed := filepath.Join(dir, "a-short"), filepath.Join(dir, "b-long"), filepath.Join(dir, "c-packed.gz")
	const longText = "0123456789abcdef\n"
	for name, test := range map[string]struct {
		change  func() error
		changed []uint64 // tasks
		refused string
	}{
		"nothing":        {change: func() error { return nil }},
		"replaced":       {change: replace(short, "other"), changed: []uint64{0}},
		"grown":          {change: write(short, "longer than one split"), changed: []uint64{0}},
		"touched":        {change: func() error { return os.Chtimes(short, time.Time{}, time.Unix(1e9, 0)) }, changed: []uint64{0}},
		"two":            {change: func() error { return errors.Join(replace(packed, "p")(), replace(short, "")()) }, changed: []uint64{0, 3}},
		"long grown":     {change: write(long, longText+"more\n")},
		"long rewritten": {change: write(long, "X"+longText), refused: "the job reads it in 2 splits"},
		"long":           {change: replace(long, longText), refused: "b-long\" has changed since the job was submitted: it was 17 bytes, modified "},
		"long shrank":    {change: write(long, "x"), refused: "the job reads it in 2 splits, so it cannot read it in its new form: submit it again"},
		"gone":           {change: func() error { return os.Remove(packed) }, refused: "c-packed.gz\" does not exist any more on the leader's machine"},
		"a folder": {
			change: func() error { return errors.Join(os.Remove(short), os.Mkdir(short, 0o700)) }, refused: "a-short\" is a folder now",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), write(short, "short")(), write(long, longText)(), write(packed, "packed")()); err != nil {
				t.Fatal(err)
			}
			req := command("cat")
			req.Inputs, req.Split = []string{dir}, "10"
			planned, err := plan.Plan(t.Context(), req, plan.Options{})
			if err != nil || planned.Input.Tasks != 4 {
				t.Fatalf("Plan() = %d tasks, %v", planned.Input.Tasks, err)
			}
			if err := test.change(); err != nil {
				t.Fatal(err)
			}
			changed, err := plan.Again(t.Context(), &planned.Input, nil)
			if test.refused != "" {
				if bad, ok := errors.AsType[plan.Errors](err); !ok || len(bad) != 1 || !strings.Contains(bad[0].Message, test.refused) {
					t.Errorf("Again() = %v, want an error with %q", err, test.refused)
				}
				return
			}
			var tasks []uint64
			for _, c := range changed {
				tasks = append(tasks, c.Task)
			}
			if err != nil || !slices.Equal(tasks, test.changed) {
				t.Fatalf("Again() = %v, %v, want tasks %v", changed, err, test.changed)
			}
			planned.Input.Changed = changed
			if again, err := plan.Again(t.Context(), &planned.Input, nil); err != nil || len(again) > 0 {
				t.Errorf("Again() = %v, %v, after the changes were recorded", again, err)
			}
		})
	}
}

// TestPlanOfAFreshFile: a change of a file after Plan has returned gives it another time, also if its clock has ticks of 10 ms.
func TestPlanOfAFreshFile(t *testing.T) {
	for name, tick := range map[string]time.Duration{"exact": 10 * time.Millisecond, "whole seconds": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // its clock begins at a whole second
				path := filepath.Join(t.TempDir(), "file")
				time.Sleep(time.Second - time.Nanosecond)
				modified := time.Now().Truncate(tick)
				if err := errors.Join(os.WriteFile(path, []byte("text"), 0o600), os.Chtimes(path, time.Time{}, modified)); err != nil {
					t.Fatal(err)
				}
				req := command("cat")
				req.Inputs = []string{path}
				if _, err := plan.Plan(t.Context(), req, plan.Options{}); err != nil {
					t.Fatal(err)
				}
				if now := time.Now(); now.Before(modified.Add(tick)) {
					t.Errorf("Plan() returned at %v, before the tick after the change at %v", now, modified)
				}
			})
		})
	}
}

func TestAgainOfManyRefused(t *testing.T) {
	dir := t.TempDir()
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(dir, strings.Repeat("x", i%100+1)+string(rune('a'+i/100))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	req := command("cat")
	req.Inputs = []string{dir}
	planned, err := plan.Plan(t.Context(), req, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, err = plan.Again(t.Context(), &planned.Input, nil)
	bad, ok := errors.AsType[plan.Errors](err)
	if !ok || len(bad) < 2 || len(bad) > 101 || !strings.Contains(bad[len(bad)-1].Message, "changed or gone: ") {
		t.Errorf("Again() = %d errors, %.200v, want a few and the number of the others", len(bad), err)
	}
	if _, err := plan.Again(t.Context(), &state.Input{Kind: state.InputRange, Tasks: 5}, nil); err != nil {
		t.Errorf("Again() of numbers = %v", err)
	}
}
