package leader

import (
	"fmt"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestNewWarnings(t *testing.T) {
	job := &state.Job{Warnings: []state.Warning{{Text: "known"}}}
	f := &wire.Finished{Stage: 1, Index: []uint64{40, 41}, Warnings: []*wire.Warning{
		{Entry: 0, Text: "known"}, {Entry: 1, Text: "new"}, {Entry: 0, Text: "new"}, {Entry: 2, Text: "of no entry"},
	}}
	if got, want := newWarnings(job, f), []state.Warning{{Stage: 1, Task: 41, Text: "new"}}; !slices.Equal(got, want) {
		t.Errorf("newWarnings() = %v, want %v", got, want)
	}
	for i := range 100 {
		f.Warnings = append(f.Warnings, &wire.Warning{Text: fmt.Sprint(i)})
	}
	if got := len(newWarnings(job, f)); got != state.WarningsMax-1 {
		t.Errorf("newWarnings() of too many = %d, want %d", got, state.WarningsMax-1)
	}
}
