package leader

import (
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestWireRoles(t *testing.T) {
	spec := &state.Spec{Stages: state.DefaultPlan(3, true, true)}
	job := &state.Job{Spec: spec}
	for i := range spec.Stages {
		job.Stages = append(job.Stages, &state.Stage{StageSpec: spec.Stages[i]})
	}
	want := []wire.StageRole{wire.StageRole_STAGE_MAP, wire.StageRole_STAGE_COLLECT, wire.StageRole_STAGE_COMMIT}
	for i, stage := range wireJob(job, 0, 0, "", nil).GetPlan() {
		if stage.GetRole() != want[i] || stage.GetName() != spec.Stages[i].Name || len(stage.GetFrom()) != i {
			t.Errorf("stage %d is %v, want the role %v", i, stage, want[i])
		}
	}
}
