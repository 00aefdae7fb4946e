package compat

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

func TestAddWorker(t *testing.T) {
	l := httpapitest.NewFake()
	l.Idle["10.0.0.7:5555"] = api.Worker{ID: 9, Status: api.WorkerAlive, Slots: 2, Busy: 1}
	l.Idle["[::1]:5556"] = api.Worker{ID: 10, Status: api.WorkerAlive}
	a := newServer(l)
	for body, want := range map[string]string{
		`{"id":3,"schema":"http","host":"10.0.0.7","port":5555}`: `{"id":3,"slots":[{"id":0,"status":{"type":"InProgress"}},{"id":1,"status":{"type":"Missing"}}],"status":{"type":"Alive"}}`,
		`{"host":"::1","port":5556,"more":true}`:                 `{"id":10,"slots":[],"status":{"type":"Alive"}}`,
		`{"id":0,"schema":"http","host":"spren-01","port":5555}`: `{"id":0,"slots":[],"status":{"type":"Dead"}}`,
	} {
		w := httpapitest.Ask(t, a, "POST", "/cluster/addWorker", body)
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != want {
			t.Errorf("addWorker %s = %d %s, want %s", body, w.Code, got, want)
		}
	}
	for body, want := range map[string]int{
		``: 400, `{"host":"a"}`: 422, `{"port":1}`: 422, `{"host":"a","port":0}`: 422, `{"host":"a","port":65536}`: 422, `{"host":"a","port":"x"}`: 422,
		`{"schema":"ftp","host":"a","port":1}`: 422, `{"host":"10.0.0.8","port":5555}`: 409,
		`{"id":-1,"host":"a","port":1}`: 422, `{"id":2147483648,"host":"a","port":1}`: 422,
	} {
		w := httpapitest.Ask(t, a, "POST", "/cluster/addWorker", body)
		if p := httpapitest.ProblemOf(t, w); p.Status != want {
			t.Errorf("addWorker %s = %+v, want %d", body, p, want)
		}
	}
}

// TestIdleWorkersAreNotMembers: the original's cluster state is a map by number, and idle workers have none.
func TestIdleWorkersAreNotMembers(t *testing.T) {
	l := httpapitest.NewFake()
	l.WorkerByID[1] = api.Worker{ID: 1, Status: api.WorkerAlive, Slots: 2}
	l.WorkerByID[99] = api.Worker{Status: api.WorkerIdle, Address: "10.0.0.7:5555", Slots: 8}
	a := newServer(l)
	want := `{"status":{"type":"Healthy"},"workers":{"1":{"id":1,"slots":[{"id":0,"status":{"type":"Missing"}},{"id":1,"status":{"type":"Missing"}}],` +
		`"status":{"type":"Alive"}}},"slots":{"open":2,"total":2}}`
	if got := strings.TrimSpace(httpapitest.Ask(t, a, "GET", "/cluster", "").Body.String()); got != want {
		t.Errorf("cluster = %s, want %s", got, want)
	}
	if list := httpapitest.Decode[api.WorkerList](t, httpapitest.Ask(t, a, "GET", "/v1/workers", "")); len(list.Workers) != 2 {
		t.Errorf("workers = %+v, want both", fmt.Sprint(list.Workers))
	}
}

// TestWorkerIDs: the id of a worker is the one that it claims, or else its number, unless another claims that.
func TestWorkerIDs(t *testing.T) {
	l := httpapitest.NewFake()
	id := func(n uint64) *uint64 { return &n }
	for n, claim := range map[uint64]*uint64{1: id(3), 2: id(0), 3: nil, 4: nil} {
		l.WorkerByID[n] = api.Worker{ID: n, Status: api.WorkerAlive, Claim: claim}
	}
	l.Set(api.Job{ID: 1, Status: api.JobRunning, Stages: []api.Stage{{Name: "map", Tasks: 5}}})
	for n := range uint64(5) { // worker 5 is gone
		l.TasksOf[1] = append(l.TasksOf[1], api.Task{Index: n, Stage: "map", Status: api.TaskDone, Worker: n + 1})
	}
	a := newServer(l)
	cluster := httpapitest.Decode[clusterState](t, httpapitest.Ask(t, a, "GET", "/cluster", ""))
	if got := slices.Sorted(maps.Keys(cluster.Workers)); !slices.Equal(got, []uint64{0, 3, 4, 3 + beyondClaims}) {
		t.Errorf("workers %v", got)
	}
	job := httpapitest.Decode[either](t, httpapitest.Ask(t, a, "GET", "/job/1", "")).Right
	for i, want := range []uint64{3, 0, 3 + beyondClaims, 4, 5} {
		if got := job.CompletedTasks[i].SlotID.WorkerID; got != want {
			t.Errorf("task %d was done by worker %d, want %d", i, got, want)
		}
	}
	for target, want := range map[string]string{"3": "true", "0": "true", "7": "false", "-1": "false"} {
		if got := strings.TrimSpace(httpapitest.Ask(t, a, "DELETE", "/cluster/removeWorker/"+target, "").Body.String()); got != want {
			t.Errorf("removeWorker/%s = %s, want %s", target, got, want)
		}
	}
	if len(l.WorkerByID) != 2 || l.WorkerByID[3].ID != 3 || l.WorkerByID[4].ID != 4 {
		t.Errorf("left are %v, want those without a claim", l.WorkerByID)
	}
}

// TestSlotsOfAWorker: what it has reported, and the attempts that it has not reported yet.
func TestSlotsOfAWorker(t *testing.T) {
	for want, w := range map[string]api.Worker{
		"Missing InProgress Done Error": {Slots: 4, Busy: 1, SlotStatus: []string{api.SlotUnused, api.SlotRunning, api.SlotDone, api.SlotFailed}},
		"InProgress Done":               {Slots: 2, Busy: 1, SlotStatus: []string{api.SlotDone, api.SlotDone}},
		"InProgress InProgress Missing": {Slots: 3, Busy: 2},
		"Done":                          {Slots: 1, SlotStatus: []string{api.SlotDone, api.SlotDone}},
	} {
		var got []string
		for _, s := range stateOf(&w, workerIDs{}).Slots {
			got = append(got, s.Status.Type)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("slots %v, want %s", got, want)
		}
	}
}
