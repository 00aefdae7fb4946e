package node

import (
	"context"
	"fmt"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
)

// SubmitFlow plans several jobs and adds them to the log, all of them or none. It returns their numbers and the warnings of each, in the order
// of the request.
func (n *Node) SubmitFlow(ctx context.Context, req *api.FlowRequest, key string) (ids []uint64, warnings [][]string, err error) {
	if err := n.acceptsWrites(ctx); err != nil {
		return nil, nil, err
	}
	began := time.Now()
	flow, err := plan.NewFlow(req.Jobs)
	if err != nil {
		return nil, nil, PlanProblem(err, "invalid flow", "body.")
	}
	if err := n.checkRate(access.From(ctx), len(req.Jobs)); err != nil {
		return nil, nil, err
	}
	if err := n.awaitLevel(ctx, "a flow", 2); err != nil {
		return nil, nil, err
	}
	again, err := n.submitted(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	if key == "" {
		key = newID()
	}
	jobs, sums, warnings, err := n.planFlow(ctx, req, plan.Options{Again: again, Flow: flow})
	var e state.Event
	if err == nil {
		e, err = n.execute(ctx, jobKey(ctx, key), func(e *state.Entry) { e.SubmitAll(jobKey(ctx, key), state.RequestSums(sums), jobs) })
	}
	if err != nil {
		for i := range jobs {
			if !again && jobs[i].Staged > 0 {
				n.unstage(ctx, jobs[i].UID)
			}
		}
		return nil, nil, err
	}
	n.observer.submit(time.Since(began))
	ids = make([]uint64, len(jobs))
	for i, at := range flow.Order {
		id := e.Job + state.JobID(i)
		ids[at], warnings[at] = uint64(id), append(warnings[at], n.warnUnable(ctx, id)...)
	}
	return ids, warnings, nil
}

// planFlow plans the jobs of a flow in their order, and stages their inputs, but for the first ones that the entry of the submit can hold. The
// warnings are in the order of the request. After an error it returns the jobs so far.
func (n *Node) planFlow(ctx context.Context, req *api.FlowRequest, opt plan.Options) (jobs []state.Submission, sums []uint64, warnings [][]string, err error) {
	turn := largeTurn{turns: n.large}
	defer turn.end()
	inline := uint64(0) // bytes of inputs in the entry of the submit
	warnings = make([][]string, len(req.Jobs))
	for _, at := range opt.Flow.Order {
		job, err := n.planJob(ctx, &req.Jobs[at], opt, &turn)
		if err != nil {
			return jobs, nil, nil, PlanProblem(err, "invalid flow", fmt.Sprintf("body.jobs[%d].", at))
		}
		in := &job.Spec.Input
		sums, warnings[at] = append(sums, job.Spec.RequestSum(req.Jobs[at].User)), job.warnings
		if size := in.BlockBytes(); inline+size <= state.StageBytes {
			inline += size
		} else {
			job.Staged = uint64(len(in.Blocks))
		}
		jobs = append(jobs, job.Submission)
		if job.Staged > 0 && !opt.Again { // at once: the inputs of all jobs together may be large
			if err := n.stage(ctx, job.UID, in); err != nil {
				return jobs, nil, nil, err
			}
		}
	}
	return jobs, sums, warnings, nil
}
