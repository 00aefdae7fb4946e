package e2e

import (
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// TestSlowWorker: a worker on which the tasks of two jobs take far longer than on the others gets none of the third one, and each view tells why.
func TestSlowWorker(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(3, "--slots", "4")
	const slow = 3
	slowed := step(`if [ "$B4_WORKER" = 3 ]; then sleep 4; else sleep 0.3; fi`)
	for range 2 { // no second attempts: they show the same, and are looked at elsewhere
		c.done(c.submit(&api.JobRequest{Range: numbers(24), NoSpeculation: true, Program: item(slowed)}))
	}
	until(t, "the worker is quarantined", func() bool {
		for _, w := range c.listWorkers() {
			if w.Aside && (w.ID != slow || w.Cause != "slow") {
				t.Fatalf("worker %d is quarantined: %s", w.ID, w.Cause)
			}
			if w.Aside {
				return true
			}
		}
		return false
	})
	if _, stdout, _ := c.cli("workers"); !strings.Contains(stdout, "alive, quarantined: slow") {
		t.Errorf("workers prints\n%s", stdout)
	}
	if _, body := c.get("/metrics"); !strings.Contains(body, `bridgefour_workers_quarantined{cause="slow"} 1`) || !strings.Contains(body, `bridgefour_worker_quarantines_total{cause="slow"} 1`) {
		t.Errorf("/metrics tells nothing of it:\n%s", body)
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
