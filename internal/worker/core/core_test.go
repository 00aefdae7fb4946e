package core

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// coreTest steps a core by hand and records its effects.
type coreTest struct {
	t    *testing.T
	core *Core
	now  time.Time
	wake time.Time

	epoch        uint64
	connects     []Connect
	starts       map[int]*Chunk
	stops        []int
	reports      []*wire.Report
	beats        []*wire.Report
	syncs        [][]ToSync
	removed      []uint64
	drained      bool
	exit         *Exit
	left         []uint64 // epochs of Disconnect
	saved        []Membership
	noLeader     []NoLeader
	refusals     []string
	stale        []StaleLeader
	gone         []Removed
	released     []Released
	lost         []string
	discoveries  []string // clusters of Discover
	undiscovered []string
	answers      []error
	unled        int
}

const testJob = 12

func newTest(t *testing.T, slots uint32) *coreTest {
	t.Helper()
	return newTestOf(t, Config{Hello: &wire.Hello{Identity: "w", Slots: slots}, Leaders: []string{"a:1", "b:2"}})
}

func newTestOf(t *testing.T, cfg Config) *coreTest {
	t.Helper()
	cfg.DrainGrace, cfg.Seed = 30*time.Second, 7
	c := &coreTest{t: t, now: time.Unix(1000, 0), starts: map[int]*Chunk{}, core: New(cfg)}
	c.step()
	return c
}

func (c *coreTest) step(inputs ...Input) {
	c.t.Helper()
	effects := c.core.Step(c.now, inputs...)
	c.wake = effects.Wake
	for _, e := range effects.List {
		switch e := e.(type) {
		case Connect:
			c.connects = append(c.connects, e)
			c.epoch = e.Epoch
		case Send:
			switch {
			case e.Message.GetGoodbye() != nil:
				c.drained = true
			case e.Urgent:
				c.beats = append(c.beats, e.Message.GetReport())
			default:
				c.reports = append(c.reports, e.Message.GetReport())
			}
		case Start:
			if c.starts[e.Slot] != nil {
				c.t.Fatalf("Start of busy slot %d", e.Slot)
			}
			c.starts[e.Slot] = e.Chunk
		case Stop:
			c.stops = append(c.stops, e.Slot)
		case Sync:
			c.syncs = append(c.syncs, e.Files)
		case Remove:
			for _, f := range e.Files {
				c.removed = append(c.removed, f.Lease)
			}
		case Exit:
			c.exit = &e
		case Disconnect:
			c.left = append(c.left, e.Epoch)
		case SaveMembership:
			c.saved = append(c.saved, e.Membership)
		case NoLeader:
			c.noLeader = append(c.noLeader, e)
		case Refused:
			c.refusals = append(c.refusals, e.Err.Error())
		case StaleLeader:
			c.stale = append(c.stale, e)
		case LeaderLost:
			c.lost = append(c.lost, e.Err.Error())
		case Discover:
			c.discoveries = append(c.discoveries, e.ClusterID)
		case DiscoveryFailed:
			c.undiscovered = append(c.undiscovered, e.Err.Error())
		case InviteAnswered:
			c.answers = append(c.answers, e.Err)
		case Removed:
			c.gone = append(c.gone, e)
		case Released:
			c.released = append(c.released, e)
		case Unled:
			c.unled += e.Leases
		case Welcomed, SendLog, BadMessage:
		}
	}
}

func (c *coreTest) welcome(revoked ...uint64) {
	c.t.Helper()
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{
		Worker: 3, Term: 1, HeartbeatMs: 1000, Revoked: revoked,
	}}})
}

func (c *coreTest) receive(m *wire.ToWorker) {
	c.t.Helper()
	c.step(Received{c.epoch, m})
}

func (c *coreTest) work(w *wire.Work) {
	c.t.Helper()
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Work{Work: w}})
}

func jobMessage(id uint64) *wire.Job {
	return &wire.Job{Id: id, Uid: "u", Output: "/out", Stages: []string{"map"}}
}

// lease grants n leases from first on; the index of a lease is its number.
func (c *coreTest) lease(first uint64, n int) {
	c.t.Helper()
	index := make([]uint64, n)
	for i := range index {
		index[i] = first + uint64(i)
	}
	c.work(&wire.Work{
		Jobs:   []*wire.Job{jobMessage(testJob)},
		Leases: []*wire.Leases{{Job: testJob, FirstLease: first, Index: index}},
	})
}

// run makes a slot run one entry of its chunk.
func (c *coreTest) run(slot int, r Result) {
	c.t.Helper()
	i, ok := c.starts[slot].Claim()
	if !ok {
		c.t.Fatalf("slot %d has nothing left to claim", slot)
	}
	c.starts[slot].Finish(i, r)
}

func (c *coreTest) idle(slot int) {
	c.t.Helper()
	c.starts[slot] = nil
	c.step(SlotIdle{slot})
}

func (c *coreTest) later(d time.Duration) {
	c.t.Helper()
	c.now = c.now.Add(d)
	c.step()
}

// lose ends the session and advances to the next Connect.
func (c *coreTest) lose() {
	c.t.Helper()
	c.step(SessionEnded{Epoch: c.epoch, Err: errors.New("gone")})
	before := len(c.connects)
	c.later(backoffMax)
	if len(c.connects) != before+1 {
		c.t.Fatalf("%d connects a second after a session ended, want 1", len(c.connects)-before)
	}
}

func (c *coreTest) held() []uint64 {
	var leases []uint64
	for _, h := range c.connects[len(c.connects)-1].Hello.GetHeld() {
		leases = append(leases, h.GetLease())
	}
	return leases
}

func finishedLeases(reports []*wire.Report) []uint64 {
	var leases []uint64
	for _, r := range reports {
		for _, f := range r.GetFinished() {
			leases = append(leases, f.GetLease()...)
		}
	}
	return leases
}

func returnedLeases(reports []*wire.Report) []uint64 {
	var leases []uint64
	for _, r := range reports {
		leases = append(leases, r.GetReturned()...)
	}
	return leases
}

func (c *coreTest) wantLeases(what string, got []uint64, want ...uint64) {
	c.t.Helper()
	if !slices.Equal(got, want) {
		c.t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func TestSingleResultIsReportedAtOnce(t *testing.T) {
	c := newTest(t, 2)
	c.welcome()
	c.lease(100, 1)
	c.run(0, Result{Records: 5, Nanos: 7_000_000})
	c.idle(0)
	if len(c.reports) != 1 {
		t.Fatalf("%d reports at once, want 1", len(c.reports))
	}
	f := c.reports[0].GetFinished()[0]
	if f.GetJob() != testJob || f.GetIndex()[0] != 100 || f.GetRecords()[0] != 5 || f.GetMicros()[0] != 7000 {
		t.Errorf("report = %v", f)
	}
	if f.GetSize() != nil || f.GetChecksum() != nil {
		t.Errorf("report = %v, want no columns of zeros", f)
	}
}

// TestReportSaysHowLongAgo: a result that waits, for its file to be synced or for a leader, is reported with its age.
func TestReportSaysHowLongAgo(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.lease(100, 2)
	c.run(0, Result{File: true, Size: 1})
	c.idle(0)
	c.later(300 * time.Millisecond)
	c.step(Synced{})
	c.run(0, Result{})
	c.idle(0)
	c.later(reportDelay)
	ages := map[uint64]uint64{}
	for _, r := range c.reports {
		for _, f := range r.GetFinished() {
			for i, lease := range f.GetLease() {
				ages[lease] = wire.Entry(f.GetAgeMs(), i)
			}
		}
	}
	if len(ages) != 2 || ages[100] < 300 || ages[100] > 400 || ages[101] != 0 {
		t.Errorf("ages by lease, ms: %v, want about 300 and 0", ages)
	}
}

func TestColumnsThatStartWithZeros(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.lease(100, 3)
	for i := range 3 {
		c.run(0, Result{Records: uint64(i / 2)})
		c.idle(0)
	}
	var all []uint64
	c.lose()
	c.reports = nil
	c.welcome()
	for _, r := range c.reports {
		all = append(all, r.GetFinished()[0].GetRecords()...)
	}
	if !slices.Equal(all, []uint64{0, 0, 1}) {
		t.Errorf("records = %v, want [0 0 1]", all)
	}
}

func TestResultsAreCollectedWhileOthersRun(t *testing.T) {
	c := newTest(t, 2)
	c.welcome()
	c.lease(100, 2)
	c.run(0, Result{})
	c.idle(0)
	if len(c.reports) != 0 {
		t.Fatal("a result was reported alone while another attempt runs")
	}
	if want := c.now.Add(idleReportDelay); !c.wake.Equal(want) {
		t.Errorf("Wake while a slot is idle = %v, want %v", c.wake, want)
	}
	c.later(idleReportDelay)
	c.wantLeases("finished", finishedLeases(c.reports), 100)
}

func TestChunkBehindALongAttemptIsCut(t *testing.T) {
	c := newTest(t, 2)
	c.welcome()
	c.lease(100, 2)
	for slot := range 2 { // which makes the estimate short
		c.run(slot, Result{Nanos: 10})
		c.idle(slot)
	}
	c.lease(200, 16)
	first := c.starts[0]
	if first.Len() != 4 {
		t.Fatalf("chunk of %d of 16 quick leases for 2 slots, want 4", first.Len())
	}
	first.Claim() // a long attempt
	c.later(chunkAge)
	if _, ok := first.Claim(); ok {
		t.Error("an old chunk can still be claimed from")
	}
	var got []uint64
	for c.starts[1] != nil {
		ch := c.starts[1]
		for i, ok := ch.Claim(); ok; i, ok = ch.Claim() {
			got = append(got, ch.Lease(i))
			ch.Finish(i, Result{Nanos: 10})
		}
		c.idle(1)
	}
	slices.Sort(got)
	if len(got) != 15 || got[0] != 201 || got[14] != 215 {
		t.Errorf("slot 1 ran %v, want 201 to 215", got)
	}
}

// TestOutputToSync: a file to be synced says how large the output of its stage is, if other files are as large.
func TestOutputToSync(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	job := jobMessage(testJob)
	job.Plan = []*wire.Stage{{Name: "map", Role: wire.StageRole_STAGE_MAP, Tasks: 10}}
	c.work(&wire.Work{Jobs: []*wire.Job{job}, Leases: []*wire.Leases{{Job: testJob, FirstLease: 100, Index: []uint64{3}}}})
	c.run(0, Result{File: true, Size: 9})
	c.idle(0)
	if len(c.syncs) != 1 || c.syncs[0][0].Output != 90 {
		t.Errorf("syncs = %v, want one of an output of 90 bytes", c.syncs)
	}
}

func TestSyncsInGroups(t *testing.T) {
	c := newTest(t, 2)
	c.welcome()
	c.lease(100, 4)
	c.run(0, Result{File: true, Size: 9})
	c.idle(0) // synced alone, at once
	c.run(1, Result{File: true})
	c.idle(1)
	c.run(0, Result{File: true})
	c.idle(0)
	if len(c.syncs) != 1 {
		t.Fatalf("%d syncs under way, want 1", len(c.syncs))
	}
	if len(finishedLeases(c.reports)) != 0 {
		t.Fatal("reported before its file was synced")
	}
	c.step(Synced{})
	c.later(reportDelay)
	c.wantLeases("finished", finishedLeases(c.reports), 100)
	if len(c.syncs) != 2 || len(c.syncs[1]) != 2 {
		t.Fatalf("syncs = %v, want the two waiting files in one", c.syncs)
	}
	c.step(Synced{[]error{nil, errors.New("disk full")}})
	c.later(reportDelay)
	c.wantLeases("finished", finishedLeases(c.reports), 100, 101)
	last := c.reports[len(c.reports)-1].GetFailed()
	if len(last) != 1 || last[0].GetKind() != wire.FailureKind_OUTPUT_ERROR || last[0].GetLease() != 102 {
		t.Errorf("failed = %v, want lease 102 as OUTPUT_ERROR", last)
	}
	c.wantLeases("removed", c.removed, 102)
}

func TestResultsAreKeptUntilTheVerdict(t *testing.T) {
	c := newTest(t, 4)
	c.welcome()
	c.lease(100, 4)
	c.run(0, Result{Size: 1})
	c.idle(0)
	c.run(1, Result{Size: 2})
	c.idle(1)
	c.later(reportDelay)
	c.wantLeases("finished", finishedLeases(c.reports), 100, 101)
	c.work(&wire.Work{Committed: []uint64{100}})
	c.starts[2].Claim()
	c.lose()
	c.wantLeases("held", c.held(), 101, 102, 103)
	for _, h := range c.connects[len(c.connects)-1].Hello.GetHeld() {
		if want := h.GetLease() != 103; h.GetStarted() != want {
			t.Errorf("held %d: started = %v, want %v", h.GetLease(), h.GetStarted(), want)
		}
	}
	c.starts[2].Finish(0, Result{}) // while there is no leader
	c.idle(2)
	c.reports = nil
	c.welcome()
	c.later(reportDelay)
	c.wantLeases("finished again", finishedLeases(c.reports), 101, 102)
	c.work(&wire.Work{Committed: []uint64{101, 102}})
	c.lose()
	c.wantLeases("held", c.held(), 103)
}

func TestStaleLeases(t *testing.T) {
	c := newTest(t, 3)
	c.welcome()
	c.lease(100, 5)
	c.run(0, Result{File: true})
	c.idle(0) // 100 is being synced, 103 is in its slot
	c.starts[1].Claim()
	c.work(&wire.Work{Stale: []uint64{100, 101, 102, 104}})
	c.wantLeases("returned", returnedLeases(c.reports))
	c.later(reportDelay)
	// 102 was in a slot and had not started; 104 was queued.
	c.wantLeases("returned", returnedLeases(c.reports), 102, 104)
	if !slices.Equal(c.stops, []int{1}) {
		t.Fatalf("stops = %v, want slot 1", c.stops)
	}
	c.starts[1].Finish(0, Result{File: true}) // before the stop takes effect
	c.idle(1)
	c.step(Synced{})
	c.later(reportDelay)
	c.wantLeases("returned", returnedLeases(c.reports), 102, 104, 101, 100)
	c.wantLeases("finished", finishedLeases(c.reports))
	c.wantLeases("removed", c.removed, 101, 100)
}

func TestStaleResultIsRemoved(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.lease(100, 1)
	c.run(0, Result{File: true})
	c.idle(0)
	c.step(Synced{})
	c.wantLeases("finished", finishedLeases(c.reports), 100)
	c.work(&wire.Work{Stale: []uint64{100}})
	c.wantLeases("removed", c.removed, 100)
	c.wantLeases("returned", returnedLeases(c.reports))
}

func TestRevokedLeases(t *testing.T) {
	c := newTest(t, 2)
	c.welcome()
	c.lease(100, 3)
	c.run(0, Result{File: true})
	c.idle(0)
	c.step(Synced{})
	c.starts[1].Claim()
	c.lose()
	c.reports = nil
	c.welcome(100, 101, 102)
	c.wantLeases("removed", c.removed, 100)
	if !slices.Equal(c.stops, []int{1}) {
		t.Errorf("stops = %v, want slot 1", c.stops)
	}
	c.starts[1].Finish(0, Result{Canceled: true})
	c.idle(1)
	c.later(reportDelay)
	c.wantLeases("finished", finishedLeases(c.reports))
	c.lose()
	c.wantLeases("held", c.held())
}

func TestJobEnded(t *testing.T) {
	c := newTest(t, 2)
	c.welcome()
	c.lease(100, 4)
	c.run(0, Result{File: true})
	c.idle(0)
	c.step(Synced{}) // 100 is prepared; 101 and 102 are in slots
	c.starts[1].Claim()
	c.work(&wire.Work{Ended: []uint64{testJob}})
	c.wantLeases("removed", c.removed) // 100 may be the winner
	c.starts[1].Finish(0, Result{Canceled: true})
	c.idle(1)
	c.idle(0)
	c.later(reportDelay)
	got := returnedLeases(c.reports)
	slices.Sort(got)
	c.wantLeases("returned", got, 101, 102, 103)
	c.work(&wire.Work{Committed: []uint64{100}})
	if len(c.core.ledger.jobs) != 0 {
		t.Error("the job is still known after its last verdict")
	}
}

// TestJobDescriptionsAreBounded describes jobs that are large together, but not one by one.
func TestJobDescriptionsAreBounded(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	program := &wire.Program{Kind: &wire.Program_Command{Command: &wire.Command{Argv: [][]byte{make([]byte, 16<<20)}}}} // one for all of them
	describe := func(id uint64) {
		job := jobMessage(id)
		job.Program = program
		c.work(&wire.Work{Jobs: []*wire.Job{job}})
	}
	for id := range uint64(jobBytesMax>>24 + 1) {
		describe(id + 1)
	}
	if got, want := len(c.core.ledger.jobs), jobBytesMax>>24-1; got != want {
		t.Errorf("%d jobs are known, want %d", got, want)
	}
	c.work(&wire.Work{Ended: []uint64{1}})
	describe(1000)
	if c.core.ledger.jobs[1000] == nil {
		t.Error("there is no room for a job after the end of another")
	}
	for id := range uint64(1001) {
		c.work(&wire.Work{Ended: []uint64{id}})
	}
	if l := &c.core.ledger; len(l.jobs) != 0 || l.jobBytes != 0 {
		t.Errorf("%d jobs with %d bytes are known after their end", len(l.jobs), l.jobBytes)
	}
}

func TestStopOfTheNextAttempt(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.lease(100, 1)
	c.starts[0].Claim()
	c.starts[0].Finish(0, Result{Canceled: true}) // without a Stop
	c.idle(0)
	c.wantLeases("returned", returnedLeases(c.reports), 100)
}

func TestStallsWhenTheLeaderIsSlow(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	const all = 200_000
	c.lease(1, all)
	ran := 0
	for c.starts[0] != nil {
		for ch := c.starts[0]; ; {
			i, ok := ch.Claim()
			if !ok {
				break
			}
			ch.Finish(i, Result{Nanos: 100})
			ran++
		}
		c.idle(0)
	}
	if len(c.reports) != ReportsInFlight {
		t.Errorf("%d reports in flight, want %d", len(c.reports), ReportsInFlight)
	}
	if most := unsentMax + (ReportsInFlight+1)*reportItems; ran > most || ran < unsentMax {
		t.Errorf("ran %d attempts while the leader reads nothing, want between %d and %d", ran, unsentMax, most)
	}
	c.step(Sent{c.epoch})
	c.step(Sent{c.epoch})
	if c.starts[0] == nil {
		t.Error("the slot is idle although the leader reads again")
	}
}

func TestHeartbeat(t *testing.T) {
	c := newTest(t, 2)
	c.welcome()
	c.lease(100, 2)
	c.starts[1].Claim()
	c.later(time.Second)
	if len(c.beats) != 1 || !c.beats[0].GetHeartbeat() {
		t.Fatalf("heartbeats = %v, want one", c.beats)
	}
	c.wantLeases("running", c.beats[0].GetRunning(), 101)
}

func TestDrain(t *testing.T) {
	tests := []struct {
		name  string
		begin func(*coreTest)
		then  func(*coreTest)
		kind  wire.FailureKind // of lease 100; 0: it finishes
	}{
		{
			"running attempts finish", func(c *coreTest) { c.step(Drain{}) },
			func(c *coreTest) { c.later(time.Second); c.starts[0].Finish(0, Result{}) }, 0,
		},
		{"ordered by the leader", func(c *coreTest) {
			c.receive(&wire.ToWorker{Message: &wire.ToWorker_Drain{Drain: &wire.Drain{}}})
		}, func(c *coreTest) { c.starts[0].Finish(0, Result{}) }, 0},
		{
			"running attempts are stopped after the grace", func(c *coreTest) { c.step(Drain{}) },
			func(c *coreTest) {
				c.later(30 * time.Second)
				c.starts[0].Finish(0, Result{Canceled: len(c.stops) == 1})
			}, wire.FailureKind_PREEMPTED,
		},
		{
			"running attempts are stopped at once", func(c *coreTest) { c.step(Drain{StopRunning: true}) },
			func(c *coreTest) { c.starts[0].Finish(0, Result{Canceled: len(c.stops) == 1}) }, wire.FailureKind_PREEMPTED,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newTest(t, 1)
			c.welcome()
			c.lease(100, 3)
			c.starts[0].Claim()
			test.begin(c)
			c.later(reportDelay)
			c.wantLeases("returned", returnedLeases(c.reports), 101, 102)
			c.lease(200, 1)
			c.later(reportDelay)
			c.wantLeases("returned", returnedLeases(c.reports), 101, 102, 200)
			test.then(c)
			c.idle(0)
			var failed []wire.FailureKind
			for _, r := range c.reports {
				for _, f := range r.GetFailed() {
					failed = append(failed, f.GetKind())
				}
			}
			if test.kind != 0 {
				if !slices.Equal(failed, []wire.FailureKind{test.kind}) {
					t.Errorf("failed = %v, want %v", failed, test.kind)
				}
			} else {
				c.wantLeases("finished", finishedLeases(c.reports), 100)
				if c.drained {
					t.Error("drained before the verdict on what finished")
				}
				c.work(&wire.Work{Committed: []uint64{100}})
			}
			if !c.drained {
				t.Fatal("not drained though nothing is held")
			}
			for c.exit == nil && c.core.session.inFlight > 0 {
				c.step(Sent{c.epoch})
			}
			if c.exit == nil {
				t.Error("no exit after the drain")
			}
		})
	}
}

func TestDrainWithoutALeader(t *testing.T) {
	c := newTest(t, 1)
	c.step(Drain{})
	if c.exit == nil {
		t.Fatal("an idle worker without a leader does not exit at once")
	}

	c = newTest(t, 1)
	c.welcome()
	c.lease(100, 1)
	c.run(0, Result{})
	c.idle(0)
	c.lose()
	c.step(Drain{})
	if c.exit != nil {
		t.Fatal("exited with a result that may still be reported")
	}
	c.later(verdictMax)
	if c.exit == nil {
		t.Fatal("waits for a leader for ever")
	}
}

// TestRemoved ends the session because the worker's key was revoked: it stops what it runs, dials no leader, and exits.
func TestRemoved(t *testing.T) {
	for _, up := range []bool{true, false} {
		c := newTest(t, 1)
		c.welcome()
		c.lease(100, 2)
		c.starts[0].Claim()
		if !up {
			c.lose()
		}
		dialed := len(c.connects)
		c.step(SessionEnded{Epoch: c.epoch, Err: errors.New("revoked"), Removed: true})
		if len(c.gone) != 1 || !slices.Equal(c.stops, []int{0}) || c.exit != nil {
			t.Fatalf("up %v: removed %v, stopped %v, exit %v; want one, slot 0, and not before it is idle", up, c.gone, c.stops, c.exit)
		}
		c.later(2 * time.Second)
		c.starts[0].Finish(0, Result{Canceled: true})
		c.idle(0)
		if c.exit == nil || len(c.connects) != dialed {
			t.Errorf("up %v: exit %v after %d dials, want one after %d", up, c.exit, len(c.connects), dialed)
		}
	}
}

func TestDrainExitsDespiteAnAttemptThatIgnoresStop(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.lease(100, 1)
	c.starts[0].Claim()
	c.step(Drain{StopRunning: true})
	c.later(KillTimeout)
	if c.exit == nil {
		t.Fatal("waits for ever for an attempt that ignores its Stop")
	}
}

func TestInvalidLeases(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.work(&wire.Work{Leases: []*wire.Leases{{Job: 99, FirstLease: 5, Index: []uint64{0, 1}}}})
	c.wantLeases("returned", returnedLeases(c.reports), 5, 6)
	c.lease(100, 4)
	for _, l := range []*wire.Leases{
		{Job: testJob, FirstLease: 102, Index: []uint64{1}},                                // known
		{Job: testJob, FirstLease: 98, Index: []uint64{1, 2, 3}},                           // overlaps known ones
		{Job: testJob, FirstLease: 300},                                                    // empty
		{Job: testJob, FirstLease: 300, Index: []uint64{1, 2}, Attempt: []uint32{1}},       // ragged
		{Job: testJob, FirstLease: 300, Index: []uint64{1}, Splits: []*wire.Split{{}, {}}}, // ragged
	} {
		c.work(&wire.Work{Leases: []*wire.Leases{l}})
	}
	if got := c.core.ledger.held(); got != 4 {
		t.Errorf("%d leases held, want 4", got)
	}
}

// TestWideAttemptWaitsForStoppedOne: the leader counts the slots of a lease as free once it has taken that back, and leases them again.
func TestWideAttemptWaitsForStoppedOne(t *testing.T) {
	for name, wide := range map[string]*wire.Job{
		"slots":  {Id: 8, Uid: "w", Output: "/wide", Stages: []string{"map"}, Slots: 2},
		"memory": {Id: 8, Uid: "w", Output: "/wide", Stages: []string{"map"}, Memory: 60},
		"gpu":    {Id: 8, Uid: "w", Output: "/wide", Stages: []string{"map"}, Resources: map[string]uint32{"gpu": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestOf(t, Config{
				Hello: &wire.Hello{Identity: "w", Slots: 2, Memory: 100}, Leaders: []string{"a:1"}, Resources: map[string][]string{"gpu": {"0", "1"}},
			})
			c.welcome()
			narrow := jobMessage(testJob)
			narrow.Memory, narrow.Resources = 50, map[string]uint32{"gpu": 1}
			c.work(&wire.Work{Jobs: []*wire.Job{narrow}, Leases: []*wire.Leases{{Job: testJob, FirstLease: 100, Index: []uint64{0}}}})
			c.starts[0].Claim()
			c.work(&wire.Work{
				Jobs: []*wire.Job{wide}, Stale: []uint64{100}, Leases: []*wire.Leases{{Job: 8, FirstLease: 200, Index: []uint64{0}}},
			})
			if len(c.stops) != 1 || c.starts[1] != nil {
				t.Fatalf("%d stops, slot 1 runs %v: want the first attempt stopped, and the second to wait", len(c.stops), c.starts[1])
			}
			c.starts[0].Finish(0, Result{Canceled: true})
			c.idle(0)
			if ch := c.starts[0]; ch == nil || ch.FirstLease != 200 {
				t.Errorf("slot 0 runs %v after the first attempt has ended, want lease 200", ch)
			}
			c.work(&wire.Work{Leases: []*wire.Leases{{Job: 8, FirstLease: 300, Index: []uint64{1}}}})
			if c.starts[1] != nil {
				t.Errorf("slot 1 runs %v beside a wide attempt", c.starts[1])
			}
		})
	}
}

// TestReleased: a worker that was removed drops its leases, keeps what may have won, and waits for an invitation, under the same id.
func TestReleased(t *testing.T) {
	c := newTestOf(t, Config{Hello: &wire.Hello{Identity: "w", Slots: 2, Claim: 4}, Leaders: []string{"a:1"}, Discovers: true})
	c.welcome()
	c.lease(100, 3)
	c.run(0, Result{File: true})
	c.idle(0)
	c.step(Synced{})
	c.later(reportDelay)
	c.wantLeases("finished", finishedLeases(c.reports), 100)
	c.starts[1].Claim()
	connects := len(c.connects)
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Drain{Drain: &wire.Drain{StopRunning: true, Reason: "removed", Wait: true}}})
	c.later(time.Hour)
	if len(c.released) != 1 || len(c.connects) != connects || len(c.discoveries) != 0 || c.exit != nil || len(c.lost) != 0 {
		t.Errorf("released %v, %d connects, %d discoveries, exit %v, lost %v; want it to wait", c.released, len(c.connects)-connects, len(c.discoveries), c.exit, c.lost)
	}
	if last := c.saved[len(c.saved)-1]; !last.Waits || last.ClusterID != "" || len(last.Leaders) != 0 {
		t.Errorf("saved %+v, want that it waits", last)
	}
	if !slices.Contains(c.stops, 1) || len(c.removed) != 0 {
		t.Errorf("stops %v, removed files of %v; want slot 1, none", c.stops, c.removed)
	}
	c.starts[1].Finish(0, Result{Canceled: true})
	c.idle(1)
	c.step(Invite{Leaders: []string{"c:1"}, ClusterID: "id", Claim: 5})
	if err := c.answers[0]; err == nil || err.Error() != "this worker has the id 3, and is invited as 4: invite it by its own id, or start it with WORKER_ID=4" {
		t.Errorf("invitation as another = %v", err)
	}
	c.step(Invite{Leaders: []string{"c:1"}, ClusterID: "id", Claim: 4})
	if err := c.answers[1]; err != nil || len(c.connects) != connects+1 {
		t.Fatalf("invitation = %v, %d connects", err, len(c.connects)-connects)
	}
	if to := c.connects[connects]; to.Leader != "c:1" || to.Hello.GetClaim() != 4 || len(to.Hello.GetHeld()) != 0 {
		t.Errorf("it connects to %+v", to)
	}
	c.welcome()
	if last := c.saved[len(c.saved)-1]; last.Waits {
		t.Errorf("saved %+v, want that it does not wait", last)
	}
	c.later(time.Second)
	if got := c.beats[len(c.beats)-1].GetSlots(); !slices.Equal(got, []wire.SlotStatus{wire.SlotStatus_SLOT_DONE, wire.SlotStatus_SLOT_FAILED}) {
		t.Errorf("slots %v, want done, failed", got)
	}
}

// TestWaitsAfterARestart: a worker that was removed does not come back by itself.
func TestWaitsAfterARestart(t *testing.T) {
	c := newTestOf(t, Config{Hello: &wire.Hello{Identity: "w", Slots: 1}, Leaders: []string{"a:1"}, Discovers: true, Waits: true})
	c.later(time.Hour)
	if len(c.connects) != 0 || len(c.discoveries) != 0 {
		t.Errorf("%d connects, %d discoveries, want none", len(c.connects), len(c.discoveries))
	}
	c.step(Invite{Leaders: []string{"c:1"}})
	if len(c.connects) != 1 {
		t.Fatal("it does not follow the invitation")
	}
	c.step(SessionEnded{Epoch: c.epoch, Err: errors.New("gone")})
	c.later(time.Minute)
	if last := c.connects[len(c.connects)-1]; last.Leader != "a:1" && c.connects[len(c.connects)-2].Leader != "a:1" {
		t.Errorf("it does not dial its configured leader after an invitation: %v", c.connects)
	}
}

// TestInvitedAsAMember: a member without an id takes that of an invitation, and tells its leader.
func TestInvitedAsAMember(t *testing.T) {
	c := newTest(t, 1)
	c.core.clusterID = "id"
	c.welcome()
	connects := len(c.connects)
	c.step(Invite{Leaders: []string{"a:1"}, ClusterID: "id", Claim: 1})
	c.later(backoffMax)
	if c.answers[0] != nil || len(c.connects) != connects+1 || c.connects[connects].Hello.GetClaim() != 1 {
		t.Errorf("answer %v, %d connects, want one with the id", c.answers[0], len(c.connects)-connects)
	}
}

// TestInvitedWhileDialing: an id that comes with an invitation after the hello has been sent reaches the leader all the same.
func TestInvitedWhileDialing(t *testing.T) {
	c := newTest(t, 1)
	connects := len(c.connects)
	c.step(Invite{Leaders: []string{c.connects[connects-1].Leader}, ClusterID: "id", Claim: 1})
	if c.answers[0] != nil || len(c.connects) != connects+1 || c.connects[connects].Hello.GetClaim() != 1 {
		t.Fatalf("answer %v, connects %v, want one more with the id", c.answers[0], c.connects)
	}
	c.step(Invite{Leaders: []string{c.connects[connects].Leader}, ClusterID: "id", Claim: 1})
	if len(c.connects) != connects+1 {
		t.Errorf("connects %v, want no further: the hello has the id", c.connects)
	}
}

// TestLostInput: an attempt that finds an output of another task missing says so, before its lease is returned. It has not failed.
func TestLostInput(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.lease(100, 1)
	lost := &wire.OutputLost{Job: testJob, Index: 3, Lease: 7}
	c.run(0, Result{Canceled: true, Lost: []*wire.OutputLost{lost}})
	c.idle(0)
	c.later(reportDelay)
	if len(c.reports) != 1 || len(c.reports[0].GetLost()) != 1 || c.reports[0].GetLost()[0] != lost || len(c.reports[0].GetFailed()) > 0 {
		t.Errorf("reports %v, want one with the output that is lost", c.reports)
	}
	c.wantLeases("returned", returnedLeases(c.reports), 100)
	if n := c.core.out.unsent(); n != 0 {
		t.Errorf("%d items unsent, want none", n)
	}
}

// TestSegmentsAreNotSynced: what only the job itself reads is reported at once.
func TestSegmentsAreNotSynced(t *testing.T) {
	c := newTest(t, 1)
	c.welcome()
	c.lease(100, 1)
	c.run(0, Result{File: true, Segment: true})
	c.idle(0)
	c.later(reportDelay)
	c.wantLeases("finished", finishedLeases(c.reports), 100)
	if len(c.syncs) > 0 {
		t.Errorf("syncs %v, want none", c.syncs)
	}
}
