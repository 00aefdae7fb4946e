package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
)

// TestSlowWorker: a worker on which the tasks of two jobs take far longer than on the others gets none of the next one, and each view tells why.
func TestSlowWorker(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(3, "--slots", "4")
	const slow = 3
	quarantined := func() bool {
		for _, w := range c.listWorkers() {
			if w.Aside && (w.ID != slow || w.Cause != "slow") {
				t.Fatalf("worker %d is quarantined: %s", w.ID, w.Cause)
			}
			if w.Aside {
				return true
			}
		}
		return false
	}
	for jobs := 0; !quarantined(); jobs++ { // on a machine that is slow itself, few of a job may be compared
		if jobs == 6 {
			t.Fatalf("the worker is not quarantined after %d jobs", jobs)
		}
		c.slowJob(slow, fmt.Sprint("gate-", jobs))
	}
	if _, stdout, _ := c.cli("workers"); !strings.Contains(stdout, "alive, quarantined: slow") {
		t.Errorf("workers prints\n%s", stdout)
	}
	if _, body := c.get("/metrics"); !strings.Contains(body, `bridgefour_workers_quarantined{cause="slow"} 1`) || !strings.Contains(body, `bridgefour_worker_quarantines_total{cause="slow"} 1`) {
		t.Errorf("/metrics tells nothing of it:\n%s", body)
	}
	for e, err := range c.client.Events(t.Context(), &api.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == api.EventWorkerQuarantined {
			if e.Worker != slow || e.Detail != "slow: no leases for 1m0s" {
				t.Errorf("event %+v, want that the slow worker is quarantined", e)
			}
			break
		}
	}

	l, gate := c.ledger("ledger"), c.path("gate")
	id := c.submit(&api.JobRequest{Range: numbers(24), Program: item(l.record(), waitFor(gate))})
	until(t, "the others have no free slot", func() bool { return len(l.entries()) == 8 })
	if _, stdout, _ := c.cli("explain", "last"); !strings.Contains(stdout, "worker 3 is quarantined: its attempts take 5 times as long") {
		t.Errorf("explain prints\n%s", stdout)
	}
	write(t, gate, "")
	c.done(id)
	for _, e := range l.entries() {
		if e.worker == slow {
			t.Errorf("the slow worker ran task %d", e.task)
		}
	}
}

// slowJob runs a job whose tasks take longer on one worker than leader.SlowFactor times what they take on the others, however long that is on this machine.
func (c *cluster) slowJob(slow uint64, gate string) {
	c.t.Helper()
	gate = c.path(gate)
	id := c.submit(&api.JobRequest{
		Range: numbers(24), NoSpeculation: true, // second attempts show the same, and are looked at elsewhere
		Program: item(unless(fmt.Sprintf("$B4_WORKER != %d", slow), waitFor(gate)), "sleep 0.3"),
	})
	var others []float64 // run times in seconds
	until(c.t, "only the slow ones run", func() bool {
		others = nil
		for _, task := range c.tasks(id, api.TaskQuery{Stage: "map"}) {
			switch {
			case task.Status == api.TaskDone:
				others = append(others, *task.Seconds)
			case task.Status != api.TaskRunning || task.Worker != slow:
				return false
			}
		}
		return true
	})
	slices.Sort(others)
	most := others[len(others)*3/4]
	run := time.NewTimer(time.Duration(leader.SlowFactor*most*float64(time.Second)) + 100*time.Millisecond) // the duration under test
	<-run.C
	write(c.t, gate, "")
	c.done(id)
}
