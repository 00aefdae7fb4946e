package wire_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestPlanOfAnOlderLeader(t *testing.T) {
	job := &wire.Job{Stages: []string{"map", "collect", "commit", "sort"}}
	want := []*wire.Stage{
		{Name: "map", Role: wire.StageRole_STAGE_MAP},
		{Name: "collect", Role: wire.StageRole_STAGE_COLLECT, From: []uint32{0}},
		{Name: "commit", Role: wire.StageRole_STAGE_COMMIT, From: []uint32{0, 1}},
		{Name: "sort", From: []uint32{0, 1, 2}},
	}
	for i, stage := range wire.PlanOf(job) {
		if !proto.Equal(stage, want[i]) {
			t.Errorf("stage %d is %v, want %v", i, stage, want[i])
		}
	}
	job.Plan = []*wire.Stage{{Name: "a", Role: wire.StageRole_STAGE_MAP}}
	if got := wire.StageOf(job, 0); got.GetName() != "a" {
		t.Errorf("stage 0 is %v, want that of the plan", got)
	}
	if got := wire.StageOf(job, 1); got.GetName() != "" || got.GetRole() != wire.StageRole_STAGE_ROLE_UNSPECIFIED {
		t.Errorf("stage 1 is %v, want none", got)
	}
}
