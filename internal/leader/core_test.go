package leader

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// busyWorker reports the end of every grant at once.
type busyWorker struct {
	session SessionID
	reports []Input
	done    int
	fail    wire.FailureKind // instead, with this
	message string           // of the failures
	long    bool             // attempts take a second, by their report
}

func (w *busyWorker) handle(e *Effects) {
	for _, m := range e.Send {
		if m.Session != w.session {
			continue
		}
		for _, l := range m.Message.GetWork().GetLeases() {
			r := &wire.Report{}
			f := &wire.Finished{Job: l.GetJob(), Stage: l.GetStage(), Index: l.GetIndex()}
			for i, index := range l.GetIndex() {
				lease := l.GetFirstLease() + uint64(i)
				f.Lease = append(f.Lease, lease)
				if w.long {
					f.Micros = append(f.Micros, 1_000_000)
				}
				if w.fail != 0 {
					r.Failed = append(r.Failed, &wire.Failure{
						Job: l.GetJob(), Stage: l.GetStage(), Index: index, Lease: lease, Kind: w.fail, Message: w.message,
					})
				}
			}
			if w.fail == 0 {
				r.Finished = append(r.Finished, f)
			}
			w.done += len(f.GetLease())
			w.reports = append(w.reports, Report{w.session, r})
		}
	}
}

// coreRig is a core with its log and a clock.
type coreRig struct {
	t       *testing.T
	now     time.Time
	machine *state.Machine
	log     *testLog
	core    *Core
	workers []*busyWorker
	last    *Effects
}

func newCoreRig(t *testing.T, workers int) *coreRig {
	t.Helper()
	r := &coreRig{t: t, now: time.UnixMilli(1), machine: state.New()}
	r.log = &testLog{machine: r.machine, term: 1, latency: func() time.Duration { return 0 }}
	r.core = NewCore(CoreConfig{Machine: r.machine, Term: 1, Now: r.now, Seed: 1})
	for i := range workers {
		w := &busyWorker{session: SessionID(i + 1)}
		r.workers = append(r.workers, w)
		r.step(Hello{w.session, &wire.Hello{Identity: fmt.Sprint(i), Incarnation: "x", Slots: 2}})
	}
	r.step()
	return r
}

// step steps once, 200 µs later, with the workers' reports and the entries that the log has committed.
func (r *coreRig) step(inputs ...Input) {
	r.t.Helper()
	r.now = r.now.Add(200 * time.Microsecond)
	for _, w := range r.workers {
		inputs = append(inputs, w.reports...)
		w.reports = nil
	}
	inputs = append(inputs, r.log.committed(r.now)...)
	e, err := r.core.Step(r.now, inputs...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.last = e
	r.log.propose(r.now, e.Propose)
	for _, w := range r.workers {
		w.handle(e)
	}
}

// beat has every worker send a heartbeat.
func (r *coreRig) beat() {
	for _, w := range r.workers {
		w.reports = append(w.reports, Report{w.session, &wire.Report{Heartbeat: true}})
	}
}

func (r *coreRig) submit(n int, tasks int64) {
	r.t.Helper()
	for range n {
		spec := &state.Spec{Output: fmt.Sprint("/", r.machine.Len(), "/", r.now.UnixMicro()), Spool: true, Retries: 9}
		spec.Input, _ = state.RangeInput(1, tasks)
		r.step(Command{"k", func(e *state.Entry) { e.Submit("", fmt.Sprint(r.now.UnixMicro()), "", spec) }})
	}
}

// While the log commits nothing, entries in flight, sealed entries and completions stay bounded; then all goes on.
func TestSlowLog(t *testing.T) {
	r := newCoreRig(t, 2)
	const tasks = 400_000
	r.submit(1, tasks)
	r.step()
	for r.machine.Job(1).Stages[0].Done < 1000 {
		r.step()
	}
	r.log.held = true
	for range 2000 {
		r.step()
		if r.core.pipeline.inFlight > inFlightMax {
			t.Fatalf("%d entries in flight, want at most %d", r.core.pipeline.inFlight, inFlightMax)
		}
	}
	most := uncommittedMax + 2*2*leasesPerSlotMax
	if got := r.core.pipeline.uncommitted; got < uncommittedMax || got > most {
		t.Errorf("%d completions wait for the log, want between %d and %d", got, uncommittedMax, most)
	}
	if got, want := len(r.core.pipeline.sealed), most/entryItems; got > want {
		t.Errorf("%d entries wait, want at most %d", got, want)
	}
	if r.core.pipeline.inFlight != inFlightMax {
		t.Errorf("%d entries in flight, want %d", r.core.pipeline.inFlight, inFlightMax)
	}
	for _, p := range r.log.pending {
		if len(p.data) > entryBytes*2 {
			t.Errorf("an entry of %d bytes", len(p.data))
		}
	}
	r.log.held = false
	for range 2000 {
		r.step()
	}
	if job := r.machine.Job(1); job.Status != state.JobDone || r.core.pipeline.uncommitted != 0 {
		t.Errorf("job %v, %d of %d tasks done, %d uncommitted", job.Status, job.Stages[0].Done, tasks, r.core.pipeline.uncommitted)
	}
}

// leasesPerSlotMax is the scheduler's limit.
const leasesPerSlotMax = 4096

// The oldest ended jobs are forgotten if there are too many, also if very many end at once.
func TestOldJobsAreForgotten(t *testing.T) {
	r := newCoreRig(t, 0)
	const more = 30
	r.submit(state.JobsKept+more, 1)
	r.step()
	r.step(Command{"all", func(e *state.Entry) {
		for _, id := range r.machine.Jobs() {
			e.Stop("", id)
		}
	}})
	forgotten, spools := 0, 0
	for range 500 {
		forgotten += len(r.last.Forgotten)
		spools += len(r.last.Spools)
		r.step()
	}
	if r.machine.Len() != state.JobsKept || forgotten != more || r.machine.Job(more) != nil || r.machine.Job(more+1) == nil {
		t.Errorf("%d jobs are remembered and %d forgotten, want %d and the oldest %d", r.machine.Len(), forgotten, state.JobsKept, more)
	}
	if len(r.core.leases.started) > state.JobsKept {
		t.Errorf("the stage starts of %d jobs are remembered", len(r.core.leases.started))
	}
	if spools < more {
		t.Errorf("%d spool folders are removed, want at least %d", spools, more)
	}
}

// Jobs are forgotten by age while the log has nothing else to do; those that are pinned are not.
func TestJobsAreForgottenByAge(t *testing.T) {
	r := newCoreRig(t, 0)
	r.step(RaiseLevel{Needs: "test"})
	r.step()
	r.step()
	r.submit(3, 1)
	r.step()
	r.step(Command{"all", func(e *state.Entry) {
		e.SetRetention("", state.Retention{User: state.Everyone, ForMS: 60_000})
		e.Pin("", 2, true)
		for _, id := range r.machine.Jobs() {
			e.Stop("", id)
		}
	}})
	for range 50 {
		r.step()
	}
	if r.machine.Len() != 3 || len(r.machine.Live()) > 0 {
		t.Fatalf("%d jobs, %d have not ended; want 3 that have", r.machine.Len(), len(r.machine.Live()))
	}
	r.now = r.now.Add(time.Minute)
	for range 50 {
		r.step()
	}
	if left := r.machine.Jobs(); !slices.Equal(left, []state.JobID{2}) {
		t.Errorf("jobs %v are left after a minute, want the pinned one", left)
	}
	r.step(Command{"unpin", func(e *state.Entry) { e.Pin("", 2, false) }})
	r.now = r.now.Add(time.Second)
	for range 50 {
		r.step()
	}
	if left := r.machine.Jobs(); len(left) > 0 {
		t.Errorf("jobs %v are left, want none: the last one is no longer pinned", left)
	}
}

func TestDeadWorkersAreForgotten(t *testing.T) {
	r := newCoreRig(t, 0)
	const more = 30
	r.step(Command{"all", func(e *state.Entry) {
		for i := range deadWorkersMax + more {
			e.Register("", &state.WorkerInfo{Identity: fmt.Sprint(i), Slots: 1})
			e.SetWorker("", state.WorkerID(i+1), state.WorkerDead)
		}
	}})
	for range 200 {
		r.step()
	}
	if n := len(r.machine.Workers()); n != deadWorkersMax || r.machine.Worker(more) != nil || r.machine.Worker(more+1) == nil {
		t.Errorf("%d workers are remembered, want %d, and the oldest %d gone", n, deadWorkersMax, more)
	}
}

// A worker on which many different tasks fail is quarantined, if there is another on which they do not.
func TestQuarantine(t *testing.T) {
	r := newCoreRig(t, 2)
	good, bad := r.core.registry.workers[1], r.core.registry.workers[2]
	r.workers[1].fail = wire.FailureKind_PROGRAM_ERROR
	r.workers[0].long, r.workers[1].long = true, true
	r.submit(1, 200)
	var since time.Time
	for i := 0; r.machine.Job(1) == nil || !r.machine.Job(1).Status.Ended(); i++ {
		if i%1000 == 0 {
			r.beat()
		}
		r.step()
		if since.IsZero() && bad.quarantine.active() {
			since = r.now
		}
		if good.quarantine.active() {
			t.Fatal("the good worker is quarantined")
		}
		if i > 1_000_000 {
			t.Fatal("the job does not end")
		}
	}
	if job := r.machine.Job(1); job.Status != state.JobDone || since.IsZero() {
		t.Errorf("job %v; the bad worker was quarantined at %v", job.Status, since)
	}
	if got := r.workers[1].done; got > 3*quarantineTasks {
		t.Errorf("the bad worker had %d attempts", got)
	}
	for bad.quarantine.active() && r.now.Before(since.Add(2*quarantineTime)) {
		r.beat()
		r.now = r.now.Add(tick)
		r.step()
	}
	if bad.quarantine.active() || r.now.Sub(since) < quarantineTime {
		t.Errorf("its quarantine ended after %v, want %v", r.now.Sub(since), quarantineTime)
	}
	// Its tasks succeed now: it gets leases, and its earlier failures do not count.
	r.workers[1].fail = 0
	before := r.workers[1].done
	r.submit(1, 200)
	for range 100 {
		r.step()
	}
	if r.workers[1].done == before || bad.quarantine.active() {
		t.Errorf("after its quarantine it has done %d of 200 tasks", r.workers[1].done-before)
	}
}

// If tasks fail on all workers, no worker is quarantined.
func TestNoQuarantineWithoutProof(t *testing.T) {
	r := newCoreRig(t, 2)
	for _, w := range r.workers {
		w.fail = wire.FailureKind_OUTPUT_ERROR
	}
	r.submit(1, 100)
	for i := range 20_000 {
		if i%1000 == 0 {
			r.beat()
		}
		r.step()
		for id, w := range r.core.registry.workers {
			if w.quarantine.active() {
				t.Fatalf("worker %d is quarantined", id)
			}
			if len(w.quarantine.failed) > quarantineTasks {
				t.Fatalf("%d failed tasks of worker %d are remembered, want at most %d", len(w.quarantine.failed), id, quarantineTasks)
			}
		}
	}
}

// The log bounds the failure messages of workers that do not.
func TestLongMessagesAreCut(t *testing.T) {
	r := newCoreRig(t, 1)
	r.workers[0].fail, r.workers[0].message = wire.FailureKind_BAD_INPUT, strings.Repeat("x", 2*wire.FailureMessageMax)
	r.submit(1, 1)
	for range 10 {
		r.step()
	}
	last := r.machine.Job(1).Stages[0].Failures(0).Last
	if len(last) != 1 || len(last[0].Message) != wire.FailureMessageMax {
		t.Errorf("the log has %d failures, want one with a message of %d bytes", len(last), wire.FailureMessageMax)
	}
}

// The back-off of a task doubles from 100 ms to 30 s, and is spread by half around that.
func TestBackOff(t *testing.T) {
	r := newCoreRig(t, 0)
	for count, want := range map[uint8]time.Duration{0: backOffFirst, 1: backOffFirst, 2: 2 * backOffFirst, 5: 16 * backOffFirst, 9: 256 * backOffFirst, 10: backOffMax, 255: backOffMax} {
		low, high := time.Hour, time.Duration(0)
		for range 300 {
			d := r.core.backOff(&state.Spec{}, state.ProgramError, count)
			low, high = min(low, d), max(high, d)
		}
		if low < want/2 || low > want*2/3 || high >= want*3/2 || high < want*4/3 {
			t.Errorf("failure %d: waits of %v to %v, want %v to %v", count, low, high, want/2, want*3/2)
		}
	}
	for _, kind := range []state.FailureKind{state.LostWorker, state.Preempted, state.BadProgram} {
		if d := r.core.backOff(&state.Spec{RetryDelayMS: 1}, kind, 1); d != 0 {
			t.Errorf("%v: waits %v, want none", kind, d)
		}
	}
	for count, want := range map[uint8]time.Duration{1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 255: 16 * time.Minute} {
		for range 300 {
			if d := r.core.backOff(&state.Spec{RetryDelayMS: 60_000}, state.Timeout, count); d < want || d > want+want/8 {
				t.Errorf("failure %d of a job with a delay of 1m: waits %v, want %v and up to an eighth more", count, d, want)
			}
		}
	}
	for asked, want := range map[uint64]time.Duration{3600_000: time.Hour, math.MaxUint64: retryDelayMax} {
		if d := r.core.wait(&state.Spec{}, state.ProgramError, 1, asked); d != want {
			t.Errorf("a program that asks for %d ms waits %v, want %v", asked, d, want)
		}
	}
	if d := r.core.wait(&state.Spec{RetryDelayMS: 60_000}, state.ProgramError, 1, 1); d < time.Minute {
		t.Errorf("a program that asks for less than its job waits %v, want at least 1m", d)
	}
	if d := r.core.backOff(&state.Spec{RetryDelayMS: math.MaxUint64}, state.Timeout, 255); d < 0 {
		t.Errorf("the largest delay is %v", d)
	}
}

// A grant of first and later attempts numbers each.
func TestGrantNumbersAttempts(t *testing.T) {
	const tasks, failed = 100, 7
	r := newCoreRig(t, 1)
	r.workers = nil // its reports follow
	r.submit(1, tasks)
	held := map[uint64]uint64{} // leases by task
	for range 5 {
		var list []Input
		for _, m := range r.sent(1) {
			for _, l := range m.GetWork().GetLeases() {
				for i, index := range l.GetIndex() {
					held[index] = l.GetFirstLease() + uint64(i)
				}
			}
		}
		if lease, ok := held[0]; ok { // a short task: many more are leased ahead
			delete(held, 0)
			list = append(list, Report{1, &wire.Report{Finished: []*wire.Finished{{Job: 1, Index: []uint64{0}, Lease: []uint64{lease}, Micros: []uint64{1}}}}})
		}
		r.step(list...)
	}
	drain := &wire.Report{Draining: true, Failed: []*wire.Failure{{Job: 1, Index: failed, Lease: held[failed], Kind: wire.FailureKind_PREEMPTED}}}
	for index, lease := range held {
		if index != failed {
			drain.Returned = append(drain.Returned, lease)
		}
	}
	slices.Sort(drain.Returned)
	r.step(Report{1, drain})
	r.step()
	r.step(Hello{2, &wire.Hello{Identity: "second", Incarnation: "x", Slots: 1}})
	r.step()
	attempts := map[uint64]uint32{}
	for _, m := range r.sent(2) {
		for _, l := range m.GetWork().GetLeases() {
			for i, index := range l.GetIndex() {
				attempts[index] = wire.Entry(l.GetAttempt(), i)
			}
		}
	}
	if len(attempts) != tasks-1 {
		t.Fatalf("%d tasks are leased, want %d", len(attempts), tasks-1)
	}
	for index, got := range attempts {
		if want := map[bool]uint32{false: 1, true: 2}[index == failed]; got != want {
			t.Errorf("task %d: attempt %d, want %d", index, got, want)
		}
	}
}

// A request for logs goes to every connected worker.
func TestFetchLog(t *testing.T) {
	r := newCoreRig(t, 3)
	r.step(Closed{2})
	r.step(FetchLog{&wire.LogRequest{Request: 4, Job: 1}})
	var asked []SessionID
	for _, m := range r.last.Send {
		if m.Message.GetLog().GetRequest() == 4 {
			asked = append(asked, m.Session)
		}
	}
	if len(asked) != 2 || asked[0] != 1 || asked[1] != 3 {
		t.Errorf("asked %v, want the sessions 1 and 3", asked)
	}
}

// Every lease that was granted before the log has a stop and a retry is fenced: the next leader must not adopt it.
func TestNoLeaseBetweenStopAndRetry(t *testing.T) {
	r := newCoreRig(t, 2)
	r.submit(1, 100_000)
	for r.machine.Job(1) == nil || r.machine.Job(1).Stages[0].Done < 1000 {
		r.step()
	}
	leases := map[state.JobID][]state.Lease{}
	step := func(inputs ...Input) {
		r.step(inputs...)
		for _, m := range r.last.Send {
			for _, l := range m.Message.GetWork().GetLeases() {
				leases[state.JobID(l.GetJob())] = append(leases[state.JobID(l.GetJob())], state.Lease(l.GetFirstLease())+state.Lease(len(l.GetIndex()))-1)
			}
		}
	}
	r.log.held = true
	ask := func(add func(e *state.Entry)) Input { return Command{"k", add} }
	step(ask(func(e *state.Entry) { e.Stop("", 1) }), ask(func(e *state.Entry) { e.Retry("", 1) }))
	r.submit(1, 100_000) // another job, which goes on
	for range 20 {
		step(ask(func(e *state.Entry) { e.Stop("", 1) }))
		step()
		step(ask(func(e *state.Entry) { e.Retry("", 1) }))
	}
	step()
	r.log.held = false
	var before []state.Lease
	for r.machine.Job(1).Fence == 0 {
		before = leases[1]
		step()
	}
	job := r.machine.Job(1)
	if len(leases[2]) == 0 {
		t.Error("job 2 got no lease meanwhile")
	}
	for _, lease := range before {
		if !job.Fenced(0, 0, lease) {
			t.Fatalf("lease %d was granted before the log had the retry, and is not fenced: the fence is at %d", lease, job.Fence)
		}
	}
	// It goes on, also if the command that froze it was rejected.
	for range 20 {
		step(ask(func(e *state.Entry) { e.Retry("", 1); e.Stop("", 99) }))
	}
	for i := 0; r.machine.Job(1).Status != state.JobDone || r.machine.Job(2).Status != state.JobDone; i++ {
		if step(); i > 100_000 {
			t.Fatalf("job 1 is %v, job 2 is %v", r.machine.Job(1).Status, r.machine.Job(2).Status)
		}
	}
	if err := r.core.Check(); err != nil {
		t.Error(err)
	}
}

// BenchmarkCore is the leader's share of a no-op task: lease, report, log entry, verdict.
func BenchmarkCore(b *testing.B) {
	machine := state.New()
	now := time.UnixMilli(1)
	log := &testLog{machine: machine, term: 1, latency: func() time.Duration { return 0 }}
	core := NewCore(CoreConfig{Machine: machine, Term: 1, Now: now, Seed: 1})
	w := &busyWorker{session: 1}
	done := func() bool { return machine.Job(1) != nil && machine.Job(1).Status.Ended() }
	spec := &state.Spec{Output: "/x", Spool: true}
	spec.Input, _ = state.RangeInput(1, int64(b.N))
	inputs := []Input{
		Hello{1, &wire.Hello{Identity: "a", Incarnation: "x", Slots: 2}}, Command{"k", func(e *state.Entry) { e.Submit("", "u", "", spec) }},
	}
	b.ReportAllocs()
	b.ResetTimer()
	for !done() {
		now = now.Add(200 * time.Microsecond)
		inputs = append(inputs, w.reports...)
		w.reports = w.reports[:0]
		inputs = append(inputs, log.committed(now)...)
		e, err := core.Step(now, inputs...)
		if err != nil {
			b.Fatal(err)
		}
		inputs = inputs[:0]
		log.propose(now, e.Propose)
		w.handle(e)
	}
}
