package leader

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// TestStagedInputOfAnotherLeader: the submit cannot come any more, so a new leader drops what was staged.
func TestStagedInputOfAnotherLeader(t *testing.T) {
	r := newCoreRig(t, 0)
	r.step(RaiseLevel{Needs: "v2"})
	for r.machine.Level() < state.FeatureLevel {
		r.step()
	}
	blocks := []state.Block{{Data: []byte("x")}}
	r.step(Command{"k", func(e *state.Entry) { e.Stage("k", "uid", 0, blocks) }})
	for len(r.machine.Staged()) == 0 {
		r.step()
	}
	r.core = NewCore(CoreConfig{Machine: r.machine, Term: 2, Now: r.now, Seed: 1})
	r.log.term = 2
	for range 10 {
		r.step()
	}
	if staged := r.machine.Staged(); len(staged) > 0 {
		t.Errorf("still staged: %v", staged)
	}
}

// TestEntryTooLarge: commands that no message between leaders could carry, or that no leader could read, are answered, and not proposed; others are.
func TestEntryTooLarge(t *testing.T) {
	r := newCoreRig(t, 0)
	large := &state.Spec{Output: "/large", Settings: map[string]string{"k": string(bytes.Repeat([]byte("x"), EntryBytesMax))}}
	r.step(
		Command{"a", func(e *state.Entry) { e.Submit("a", "u1", "", &state.Spec{Output: "/a"}) }},
		Command{"b", func(e *state.Entry) { e.Submit("b", "u2", "", large) }},
		Command{"d", func(e *state.Entry) {
			e.Submit("d", "u4", "", &state.Spec{Output: "/d", Input: state.Input{Tasks: 1 << 60}})
		}},
		Command{"c", func(e *state.Entry) { e.Submit("c", "u3", "", &state.Spec{Output: "/c"}) }},
	)
	got := map[string]error{}
	for len(got) < 4 {
		for _, e := range r.last.Replies {
			got[e.Key] = e.Err
		}
		if len(got) < 4 {
			r.step()
		}
	}
	if got["a"] != nil || got["c"] != nil || r.machine.Len() != 2 {
		t.Errorf("the others are answered %v and %v, %d jobs; want nil, nil and 2", got["a"], got["c"], r.machine.Len())
	}
	rejection, ok := got["b"].(*state.Rejection) //nolint:errorlint // a result, not wrapped
	if !ok || rejection.Code != state.TooLarge || rejection.Message != "the request takes 16.0 MiB of the log, and one entry holds 16 MiB" {
		t.Errorf("the large command is answered %v", got["b"])
	}
	if got["d"] == nil || !strings.Contains(got["d"].Error(), "a value that the log cannot hold") {
		t.Errorf("the command that cannot be read is answered %v", got["d"])
	}
}

// TestBytesInFlightAreBounded: the log blocks the leader if it is given much more than it has committed.
func TestBytesInFlightAreBounded(t *testing.T) {
	p, now := newPipeline(2), time.UnixMilli(1)
	block := []state.Block{{Data: bytes.Repeat([]byte("x"), 4<<20)}}
	var proposed [][]byte
	for i := range 10 {
		p.openUrgent(now, 1).Stage("k", "u", i, block)
		proposed = p.flush(now.Add(time.Second), proposed)
	}
	if len(proposed) != 4 {
		t.Errorf("%d entries of 4 MiB are in flight, want 4", len(proposed))
	}
	for range 10 {
		p.applied(now)
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		proposed = p.flush(now.Add(time.Second), proposed)
	}
	if len(proposed) != 10 || !p.idle() {
		t.Errorf("%d entries are proposed, idle %v; want 10 and true", len(proposed), p.idle())
	}
}

// TestInputsKept: ended jobs with large inputs are forgotten early, the oldest first. Others are kept.
func TestInputsKept(t *testing.T) {
	r := newCoreRig(t, 1)
	r.core.inputsKept = 7 << 20 / 2
	for i := range 6 {
		spec := &state.Spec{Output: fmt.Sprint("/out/", i), Spool: true}
		if i%2 == 0 {
			spec.Input = state.Input{Kind: state.InputLines, Tasks: 1, Blocks: []state.Block{{Data: make([]byte, 3<<19)}}}
		}
		r.step(Command{fmt.Sprint(i), func(e *state.Entry) { e.Submit("", fmt.Sprint("u", i), "", spec) }})
		for range 50 {
			r.step()
		}
		if got := r.machine.InputBytes(); got > r.core.inputsKept {
			t.Errorf("after job %d, inputs take %d bytes", i+1, got)
		}
	}
	if got, want := r.machine.Jobs(), []state.JobID{2, 3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("the jobs %v are kept, want %v", got, want)
	}
}
