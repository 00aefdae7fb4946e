package core

import (
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestAttemptsEndWithoutALeader: attempts of a job that says so are stopped when no leader has confirmed a heartbeat that was sent in that time, whatever else the
// worker hears. Others go on, and so do results that are ready.
func TestAttemptsEndWithoutALeader(t *testing.T) {
	c := newTest(t, 3)
	c.receive(&wire.ToWorker{Heard: 1, Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{Worker: 3, Term: 1, HeartbeatMs: 1000}}})
	locks := jobMessage(testJob)
	locks.UnledMs = 10_000
	others := jobMessage(testJob + 1)
	c.receive(&wire.ToWorker{Heard: 1, Message: &wire.ToWorker_Work{Work: &wire.Work{
		Jobs: []*wire.Job{locks, others},
		Leases: []*wire.Leases{
			{Job: testJob, FirstLease: 100, Index: []uint64{1, 2}},
			{Job: testJob + 1, FirstLease: 200, Index: []uint64{1}},
			{Job: testJob, FirstLease: 300, Index: []uint64{3, 4}},
		},
	}}})
	c.run(0, Result{})
	for slot := range 3 {
		c.starts[slot].Claim()
	}
	from := c.now
	for c.now.Sub(from) < 9*time.Second { // pings that confirm what the first heartbeat did
		c.later(time.Second)
		c.receive(&wire.ToWorker{Heard: 2, Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}})
	}
	if c.unled != 0 || len(c.beats) < 9 || c.beats[0].GetNumber() != 2 {
		t.Fatalf("%d leases were given up after 9 s of 10, and %d heartbeats, the first one number %d; want none, 9 and 2", c.unled, len(c.beats), c.beats[0].GetNumber())
	}
	c.later(2 * time.Second)
	if c.unled == 0 {
		t.Fatalf("no lease was given up 11 s after the first heartbeat was sent")
	}
	c.lose()
	hello := c.connects[len(c.connects)-1].Hello
	var held, stopping []uint64
	for _, h := range hello.GetHeld() {
		held = append(held, h.GetLease())
	}
	for _, h := range hello.GetStopping() {
		stopping = append(stopping, h.GetLease())
	}
	c.wantLeases("held", held, 100, 200)
	c.wantLeases("stopping", stopping, 101)
	if !hello.GetEnds() {
		t.Error("the Hello does not say that the ends of attempts are reported")
	}
}

// TestConfirmedHeartbeatsKeepAttempts: the time counts from when the confirmed heartbeat was sent; with an older leader, from its last message.
func TestConfirmedHeartbeatsKeepAttempts(t *testing.T) {
	for _, older := range []bool{false, true} {
		c := newTest(t, 1)
		message := func(m *wire.ToWorker) {
			if !older {
				m.Heard = max(1, uint64(len(c.beats))) // it hears each heartbeat but the last
			}
			c.receive(m)
		}
		message(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{Worker: 3, Term: 1, HeartbeatMs: 1000}}})
		job := jobMessage(testJob)
		job.UnledMs = 10_000
		message(&wire.ToWorker{Message: &wire.ToWorker_Work{Work: &wire.Work{Jobs: []*wire.Job{job}, Leases: []*wire.Leases{{Job: testJob, FirstLease: 100, Index: []uint64{1}}}}}})
		c.starts[0].Claim()
		for range 60 {
			c.later(time.Second)
			message(&wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}})
		}
		if c.unled != 0 {
			t.Errorf("older leader %v: the attempt was stopped while its leader heard of the worker", older)
		}
		c.later(8 * time.Second)
		if c.unled != 0 {
			t.Errorf("older leader %v: the attempt was stopped 8 s after the last message", older)
		}
		if c.later(2 * time.Second); c.unled != 1 {
			t.Errorf("older leader %v: the attempt goes on 10 s after the last message", older)
		}
	}
}

// TestRevokedResultsAreReturned: the leader learns that an attempt has ended which it has revoked, whatever had become of it by then.
func TestRevokedResultsAreReturned(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.lease(100, 1)
	c.lose()
	c.run(0, Result{File: true, Size: 1})
	c.idle(0)
	c.step(Synced{})
	c.welcome(100)
	c.later(reportDelay)
	c.wantLeases("finished", finishedLeases(c.reports))
	c.wantLeases("returned", returnedLeases(c.reports), 100)
}
