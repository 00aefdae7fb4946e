package sched

import (
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
)

// TestJobsOfProgram has two jobs of one program: a worker of another one may have one of them only, so their needs differ.
func TestJobsOfProgram(t *testing.T) {
	labels := map[string]string{state.LabelJobs: "boom,total"}
	boom, total := &state.Spec{Builtin: "boom", Labels: labels}, &state.Spec{Builtin: "total", Labels: labels}
	w := &Worker{Slots: 1, Labels: map[string]string{state.LabelJobs: "boom,other"}}
	if !Eligible(boom, w) || Eligible(total, w) {
		t.Errorf("Eligible(boom), Eligible(total) = %v, %v, want true, false", Eligible(boom, w), Eligible(total, w))
	}
	a, b := needOf(boom), needOf(total)
	if a.key() == b.key() {
		t.Errorf("both jobs have the need %q", a.key())
	}
}
