package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// TestWide: beside a long job of small tasks, jobs whose tasks need a whole worker, by slots or by memory, say why they wait, and end; so
// does a later job, and the long job goes on.
func TestWide(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.worker("worker", "--slots", "2", "--memory", "1GiB")
	c.untilAlive(1)
	gate := c.path("gate")
	narrow := c.submit(&api.JobRequest{Range: numbers(100_000), Program: item(unless("$B4_TASK -gt 0", waitFor(gate)), "sleep 0.05")})
	c.untilMap(narrow, "has done some tasks", func(s api.Stage) bool { return s.Done > 4 })

	const nap = "sleep 0.05"
	wide := c.submit(&api.JobRequest{Range: numbers(3), SlotsPerTask: 2, Program: item(nap)})
	want := regexp.MustCompile(`(?m)needs 2 slots at once; worker 1 is being emptied for it, [01] of 2 slots free$`)
	until(t, "the wide job says which worker is being emptied", func() bool {
		_, stdout, _ := c.cli("explain", fmt.Sprint(wide))
		return want.MatchString(stdout)
	})
	e, err := c.client.Explain(t.Context(), wide, "", 0)
	if r := e.Reservation; err != nil || r == nil || r.Worker != 1 || r.Slots != 2 || r.SlotsFree > 1 {
		t.Errorf("Explain() = %+v, %v; want the reservation of worker 1", e, err)
	}
	large := c.submit(&api.JobRequest{Range: numbers(3), Memory: "800MiB", Program: item(nap)})
	later := c.submit(&api.JobRequest{Range: numbers(3), Program: item(nap)})
	tooWide := c.submit(&api.JobRequest{Range: numbers(1), SlotsPerTask: 3, Program: item(nap)})
	c.untilMap(narrow, "goes on beside the wait", func(s api.Stage) bool { return s.Done > 10 })

	write(t, gate, "")
	for _, id := range []uint64{wide, large, later} {
		c.done(id)
	}
	if _, stdout, _ := c.cli("explain", fmt.Sprint(tooWide)); !strings.Contains(stdout, "no worker has 3 slots") {
		t.Errorf("explain = %q, want that no worker has 3 slots", stdout)
	}
	before := c.job(narrow).Stages[0].Done
	c.untilMap(narrow, "goes on", func(s api.Stage) bool { return s.Done > before+20 })
}
