package node

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/state"
)

// TestFlow submits jobs with large inputs, which are staged, all or none.
func TestFlow(t *testing.T) {
	r := newRig(t)
	l, flow := r.node, api.FlowRequest{}
	for i, name := range []string{"last", "first", "large"} {
		req := withLines([]int{2 << 20, 700 << 10, 3 << 20}[i])
		req.Name = name
		flow.Jobs = append(flow.Jobs, *req)
	}
	flow.Jobs[0].After = []string{"first", "large:any"}
	for range 2 {
		ids, warnings, err := l.SubmitFlow(t.Context(), &flow, "key")
		if err != nil || !reflect.DeepEqual(ids, []uint64{3, 1, 2}) || len(warnings) != 3 {
			t.Fatalf("SubmitFlow() = %v, %v, %v", ids, warnings, err)
		}
		for i, id := range ids {
			if job, ok := l.Job(id); !ok || job.Name != flow.Jobs[i].Name || job.Stages[0].Tasks != uint64([]int{33, 12, 49}[i]) {
				t.Errorf("job %d is %+v, want %s", id, job, flow.Jobs[i].Name)
			}
		}
	}
	last, _ := l.Job(3)
	if want := []api.Dependency{{Job: 1, Pending: true}, {Job: 2, Any: true, Pending: true}}; !reflect.DeepEqual(last.After, want) {
		t.Errorf("the last comes after %v, want %v", last.After, want)
	}
	flow.Jobs[0].After = []string{"first", "9"}
	_, _, err := l.SubmitFlow(t.Context(), &flow, "")
	problemOf(t, err, http.StatusNotFound, `job "last": there is no job 9 for this job to come after`)
	flow.Jobs[1].Inputs = []string{"/nothing"}
	_, _, err = l.SubmitFlow(t.Context(), &flow, "")
	problemOf(t, err, http.StatusUnprocessableEntity, "give one of inputs, lines and range, not 2 of them")
	r.until("nothing is staged", func() bool { return len(staged(t, l)) == 0 })
	if _, ok := l.Job(4); ok {
		t.Error("a job of a flow that was refused is there")
	}
}

// TestFlowIsBounded: each of its jobs counts as a submit.
func TestFlowIsBounded(t *testing.T) {
	l := newRig(t).node
	flow := api.FlowRequest{Jobs: make([]api.JobRequest, state.SubmissionMax)}
	for i := range flow.Jobs {
		flow.Jobs[i] = *request(1)
		flow.Jobs[i].Name = fmt.Sprintf("job %d", i)
		if i > 0 {
			flow.Jobs[i].After = []string{flow.Jobs[i-1].Name}
		}
	}
	ctx := access.WithPrincipal(t.Context(), access.Principal{Name: "ann", Permissions: access.Submit})
	if ids, _, err := l.SubmitFlow(ctx, &flow, ""); err != nil || ids[999] != 1000 {
		t.Fatalf("SubmitFlow() = %v, %v", len(ids), err)
	}
	_, _, err := l.SubmitFlow(ctx, &flow, "")
	problemOf(t, err, http.StatusTooManyRequests, `user "ann" submits more than 100 jobs a second`)
	flow.Jobs = append(flow.Jobs, *request(1))
	_, _, err = l.SubmitFlow(t.Context(), &flow, "")
	problemOf(t, err, http.StatusUnprocessableEntity, "1001 jobs: want 1 to 1000 in one submission")
}
