package wire

import "slices"

// PlanOf returns the stages of a job. If the leader is from before plans were sent, each has the role that its name says, and
// comes from all before it.
func PlanOf(job *Job) []*Stage {
	if len(job.GetPlan()) > 0 {
		return job.GetPlan()
	}
	var plan []*Stage
	var from []uint32
	for i, name := range job.GetStages() {
		stage := &Stage{Name: name}
		switch name {
		case "map":
			stage.Role = StageRole_STAGE_MAP
		case "collect":
			stage.Role = StageRole_STAGE_COLLECT
		case "commit":
			stage.Role = StageRole_STAGE_COMMIT
		}
		stage.From = slices.Clone(from)
		plan, from = append(plan, stage), append(from, uint32(i))
	}
	return plan
}

// StageOf returns a stage of a job; one without a role if there is no such stage.
func StageOf(job *Job, number uint32) *Stage {
	if plan := PlanOf(job); int(number) < len(plan) {
		return plan[number]
	}
	return &Stage{}
}
