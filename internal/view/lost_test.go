package view

import (
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
)

func TestLostRangesAreBounded(t *testing.T) {
	var lost []state.OutputRange
	for _, task := range []uint64{0, 1, 2, 5, 7, 8} {
		lost = addLost(lost, 0, task)
	}
	lost = addLost(lost, 1, 9)
	want := []state.OutputRange{{First: 0, Tasks: 3}, {First: 5, Tasks: 1}, {First: 7, Tasks: 2}, {Stage: 1, First: 9, Tasks: 1}}
	if !slices.Equal(lost, want) {
		t.Errorf("the ranges are %v, want %v", lost, want)
	}
	for task := uint64(20); task < 20+4*lostMax; task += 2 {
		lost = addLost(lost, 1, task)
	}
	last := lost[len(lost)-1]
	if len(lost) != lostMax || last.First+last.Tasks != 20+4*lostMax-1 {
		t.Errorf("%d ranges, the last of which is %v, want %d up to the last task", len(lost), last, lostMax)
	}
}
