package core

import "testing"

// TestQueuedLeasesAreReturned: leases granted in advance must not wait behind long attempts while other workers are idle.
func TestQueuedLeasesAreReturned(t *testing.T) {
	c := newTest(t, 2)
	c.welcome()
	c.lease(100, 5)
	for slot := range 2 {
		c.starts[slot].Claim() // long attempts
	}
	c.later(queueAge - 1)
	c.wantLeases("returned", returnedLeases(c.reports))
	if want := c.now.Add(1); c.wake.After(want) {
		t.Errorf("Wake = %v, want %v at the latest", c.wake, want)
	}
	c.later(1)
	c.later(reportDelay)
	c.wantLeases("returned", returnedLeases(c.reports), 102, 103, 104)

	// Later leases have a deadline of their own.
	c.lease(200, 1)
	c.later(queueAge - 1)
	c.wantLeases("returned", returnedLeases(c.reports), 102, 103, 104)
	c.later(1)
	c.later(reportDelay)
	c.wantLeases("returned", returnedLeases(c.reports), 102, 103, 104, 200)

	// Without a leader they are kept.
	c.lease(300, 1)
	c.lose()
	c.later(2 * queueAge)
	c.wantLeases("returned", returnedLeases(c.reports), 102, 103, 104, 200)
	c.wantLeases("held", c.held(), 100, 101, 300)
}
