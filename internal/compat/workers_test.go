package compat

import (
	"fmt"
	"net/http"
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
		`{"id":3,"schema":"http","host":"10.0.0.7","port":5555}`: `{"id":9,"slots":[{"id":0,"status":{"type":"InProgress"}},{"id":1,"status":{"type":"Missing"}}],"status":{"type":"Alive"}}`,
		`{"host":"::1","port":5556,"more":true}`:                 `{"id":10,"slots":[],"status":{"type":"Alive"}}`,
	} {
		w := httpapitest.Ask(t, a, "POST", "/cluster/addWorker", body)
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != want {
			t.Errorf("addWorker %s = %d %s, want %s", body, w.Code, got, want)
		}
	}
	for body, want := range map[string]int{
		``: 400, `{"host":"a"}`: 422, `{"port":1}`: 422, `{"host":"a","port":0}`: 422, `{"host":"a","port":65536}`: 422, `{"host":"a","port":"x"}`: 422,
		`{"schema":"ftp","host":"a","port":1}`: 422, `{"host":"10.0.0.8","port":5555}`: 409,
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
