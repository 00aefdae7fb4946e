package view

import (
	"context"
	"net/http"
	"sync"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// lostMax bounds the ranges of lost outputs that a retry names: they travel in one log entry.
const lostMax = 100_000

// LostOutputs looks at the outputs that a job has in the spool, for a retry, and returns the tasks of those that are missing, or are not what
// the tasks have written, in order. It reads all of them, as Result does: nothing else would find bytes that have changed. Tasks without output
// cost nothing. Of another job, and of a stopped one, it returns none. If no output is there, and there are other leaders, this one may have
// another spool: then none is lost, and of a job that is done the problem is a 410.
func (r *Reader) LostOutputs(ctx context.Context, id uint64) ([]state.OutputRange, error) {
	job, err := r.known(id)
	if err != nil || !job.Spool || job.Status == api.JobStopped {
		return nil, err
	}
	parts, err := r.partsOf(&job)
	if err != nil {
		return nil, err
	}
	var lost []state.OutputRange
	found := false
	var first *resultFile // of those that are missing
	for stage, at := 0, uint64(0); ; {
		var files []resultFile
		last := false
		if err := parts.visit(ctx, func(job *state.Job) {
			files, stage, at = parts.keptOutputs(job, stage, at)
			last = stage == len(job.Stages)
		}); err != nil {
			return nil, err
		}
		missing, err := parts.missing(ctx, files)
		if err != nil {
			return nil, err
		}
		for i := range files {
			switch f := &files[i]; {
			case !missing[i]:
				found = true
			default:
				if first == nil {
					first = f
				}
				lost = addLost(lost, uint32(f.stage), f.task) //nolint:gosec // few
			}
		}
		if last {
			break
		}
	}
	if first == nil || found || len(r.source.Leaders().Leaders) == 1 {
		return lost, nil
	}
	if job.Status == api.JobDone {
		return nil, parts.unreachable(first.name)
	}
	return nil, nil
}

// keptOutputs returns the next outputs, from that of task at of a stage on, that are kept until the job is forgotten: parts, and what was collected
// of them. The next visit continues at the stage and the task that it returns.
func (r *resultParts) keptOutputs(job *state.Job, stage int, at uint64) (files []resultFile, nextStage int, next uint64) {
	for ; stage < len(job.Stages); stage, at = stage+1, 0 {
		if stage != job.Spec.PartStage() && job.Stages[stage].Role != state.RoleCollect {
			continue
		}
		visited := 0
		for task := range job.Stages[stage].DoneTasks(at) {
			if visited++; visited > partsVisit || len(files) == resultPage {
				return files, stage, task
			}
			if out, _ := job.Stages[stage].Output(task); out.Size > 0 {
				files = append(files, r.file(job, stage, task, out))
			}
		}
	}
	return files, stage, 0
}

// missing reports of each file whether it is missing, or not what its task has written. A file that cannot be read for another reason is an error.
func (r *resultParts) missing(ctx context.Context, files []resultFile) ([]bool, error) {
	const readers = 8 // a network file system takes its time for each file
	missing, errs := make([]bool, len(files)), make([]error, readers)
	var wg sync.WaitGroup
	for n := range readers {
		wg.Go(func() {
			for i := n; i < len(files) && errs[n] == nil; i += readers {
				in, err := r.open(ctx, &files[i], 0)
				if err == nil {
					err = in.Close()
				}
				if missing[i] = api.IsStatus(err, http.StatusGone); !missing[i] {
					errs[n] = err
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// addLost adds a task to the ranges, the last of which it may follow. If there are too many, the last one grows up to the task: those between run
// again too, which costs time alone.
func addLost(lost []state.OutputRange, stage uint32, task uint64) []state.OutputRange {
	if n := len(lost) - 1; n >= 0 && lost[n].Stage == stage && (lost[n].First+lost[n].Tasks == task || n+1 >= lostMax) {
		lost[n].Tasks = task + 1 - lost[n].First
		return lost
	}
	return append(lost, state.OutputRange{Stage: stage, First: task, Tasks: 1})
}
