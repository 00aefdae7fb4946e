package compat

import "github.com/bridgefour/bridgefour/api"

// typed is an enumeration in the original's JSON: {"type":"Done"}.
type typed struct {
	Type string `json:"type"`
}

// The original system's words: execution status of jobs, tasks and slots.
const (
	notStarted = "NotStarted"
	inProgress = "InProgress"
	halted     = "Halted"
	done       = "Done"
	failed     = "Error"
	missing    = "Missing"
)

// executionStatus is a job's status in the original's words. It has none for a stopped job, which is an Error: clients poll until the
// status is none of NotStarted, InProgress and Halted.
func executionStatus(job *api.Job) typed {
	switch job.Status {
	case api.JobWaiting:
		return typed{notStarted}
	case api.JobRunning:
		var open, running uint64
		for i := range job.Stages {
			open += job.Stages[i].Open
			running += job.Stages[i].Running
		}
		if open > 0 && running == 0 {
			return typed{halted}
		}
		return typed{inProgress}
	case api.JobHalted:
		return typed{halted}
	case api.JobDone:
		return typed{done}
	case api.JobFailed, api.JobStopped:
		return typed{failed}
	}
	return typed{missing}
}

// assignmentStatus returns whether none, some or all of the tasks that are not done have a slot.
func assignmentStatus(job *api.Job) typed {
	stage := job.PartStage()
	switch {
	case stage.Running == 0 || job.Status == api.JobWaiting:
		return typed{"NotAssigned"}
	case stage.Open > 0:
		return typed{"PartiallyAssigned"}
	}
	return typed{"FullyAssigned"}
}

// slotStatus is that of the last attempt of a slot, or Missing.
func slotStatus(status string) typed {
	switch status {
	case api.SlotRunning:
		return typed{inProgress}
	case api.SlotDone:
		return typed{done}
	case api.SlotFailed:
		return typed{failed}
	}
	return typed{missing}
}

// workerStatus is Alive for a draining worker too.
func workerStatus(status string) typed {
	if status == api.WorkerDead {
		return typed{"Dead"}
	}
	return typed{"Alive"}
}

// clusterStatus is the cluster's health in the original's words.
func clusterStatus(status string) typed {
	switch status {
	case api.ClusterHealthy:
		return typed{"Healthy"}
	case api.ClusterDegraded:
		return typed{"Degraded"}
	}
	return typed{"Dead"}
}
