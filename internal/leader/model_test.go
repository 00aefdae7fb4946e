package leader

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "the only seed that the model test plays; 0: several")
	modelSeeds = flag.Int("model.seeds", 15, "how many seeds the model test plays")
)

// TestModel plays a cluster in virtual time: workers that run, fail, hang, crash, are cut off and come back, leaders that
// change, clients that submit, stop and retry. The books are checked after each step; when the faults have stopped, every
// job must end and nothing may be left in the books.
func TestModel(t *testing.T) {
	seeds := []uint64{*modelSeed}
	if *modelSeed == 0 {
		seeds = seeds[:0]
		for i := range *modelSeeds {
			seeds = append(seeds, uint64(i)+1)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for range 4000 {
				w.step()
				w.chaos()
			}
			w.settle()
		})
	}
}

// world is the simulated cluster.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	now     time.Time
	machine *state.Machine
	log     *testLog
	core    *Core
	workers []*simWorker
	inputs  []Input // for the next step of the core

	lastSession SessionID
	lastKey     int
	asked       map[string]bool // keys of requests of this term that wait for their answer
	faults      bool
	failRate    int
	slow        bool // attempts are long
	seen        map[uint64]bool
	files       map[uint64]map[uint64]bool // by job and lease: what attempts have written
	removed     map[uint64]string          // why a file is no more, by lease
	winners     map[taskKey]state.Lease
	trace       []string
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.UnixMilli(1_000_000), machine: state.New(), faults: true,
		asked: map[string]bool{}, seen: map[uint64]bool{}, files: map[uint64]map[uint64]bool{}, removed: map[uint64]string{},
		winners: map[taskKey]state.Lease{},
	}
	w.failRate = []int{0, 5, 30}[w.rng.IntN(3)]
	w.slow = w.rng.IntN(2) == 0
	w.log = &testLog{machine: w.machine, term: 1, latency: func() time.Duration {
		return time.Duration(w.rng.IntN([]int{1, 3000, 40000}[w.rng.IntN(3)])) * time.Microsecond
	}}
	w.core = NewCore(CoreConfig{Machine: w.machine, Cluster: "model", Term: w.log.term, Now: w.now, Seed: seed})
	for i := range 1 + w.rng.IntN(4) {
		w.workers = append(w.workers, &simWorker{
			w: w, name: string(rune('a' + i)), slots: 1 + w.rng.IntN(4), memory: uint64(w.rng.IntN(2)) * 100, held: map[uint64]*simAttempt{},
		})
	}
	return w
}

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8.3f ", float64(w.now.UnixMicro()-1_000_000_000)/1e6)+fmt.Sprintf(format, args...))
	if len(w.trace) > 400 {
		w.trace = w.trace[200:]
	}
}

// fatalf fails the test with what happened before.
func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.trace, "\n"))
}

func (w *world) runTime() time.Duration {
	if w.slow {
		return time.Duration(w.rng.IntN(3_000)) * time.Millisecond
	}
	return time.Duration(w.rng.IntN(3_000)) * time.Microsecond
}

func (w *world) micros() uint64 { return uint64(w.rng.IntN(5000)) }

// deliver takes an input to the core, unless it gets lost with the leader.
func (w *world) deliver(_ time.Time, in Input) {
	w.logf("-> %T %v", in, in)
	w.inputs = append(w.inputs, in)
}

func (w *world) addFile(job, lease uint64) {
	if w.files[job] == nil {
		w.files[job] = map[uint64]bool{}
	}
	w.files[job][lease] = true
}

func (w *world) removeFile(job, lease uint64, why string) {
	delete(w.files[job], lease)
	w.removed[lease] = why
}

// commit is what the task of a commit stage does; it returns what is wrong.
func (w *world) commit(a *simAttempt) string {
	job := w.machine.Job(state.JobID(a.job))
	if job == nil || !job.Open(int(a.stage), 0) {
		return "" // a stale attempt: in a real cluster, it is refused the winners
	}
	if a.action == wire.CommitAction_ABORT {
		for lease := range w.files[a.job] {
			w.removeFile(a.job, lease, "the job was aborted")
		}
		return ""
	}
	return w.missing(job, int(a.stage))
}

// missing names a winner's file that is not there.
func (w *world) missing(job *state.Job, stages int) string {
	for _, stage := range job.Stages[:stages] {
		for i := range stage.Tasks {
			if out, ok := stage.Output(i); ok && !w.files[uint64(job.ID)][uint64(out.Winner)] {
				return fmt.Sprintf("the file of the winner of %v/%d, lease %d, is gone: %s", stage.Name, i, out.Winner, w.removed[uint64(out.Winner)])
			}
		}
	}
	return ""
}

// step advances time to what comes next, at the latest by a tick.
func (w *world) step() {
	w.now = w.now.Add(time.Duration(1+w.rng.IntN(20_000)) * time.Microsecond)
	for _, s := range w.workers {
		s.step(w.now)
	}
	inputs := append(w.inputs, w.log.committed(w.now)...)
	w.inputs = nil
	e, err := w.core.Step(w.now, inputs...)
	if err != nil {
		w.fatalf("step: %v", err)
	}
	w.carryOut(e)
	w.check()
}

func (w *world) carryOut(e *Effects) {
	w.log.propose(w.now, e.Propose)
	for _, m := range e.Send {
		w.logf("<- session %d %v", m.Session, m.Message)
		for _, s := range w.workers {
			if s.session == m.Session {
				s.in = append(s.in, simMessage{m.Session, w.now.Add(time.Duration(w.rng.IntN(3)) * time.Millisecond), m.Message})
			}
		}
	}
	for _, c := range e.Close {
		w.logf("<- session %d closed: %s", c.Session, c.Reason)
		for _, s := range w.workers {
			if s.session == c.Session {
				s.disconnect(w.now, true)
				s.gone = s.gone || c.Refused && strings.Contains(c.Reason, "removed")
			}
		}
	}
	for i := range e.Replies {
		r := &e.Replies[i]
		if !w.asked[r.Key] {
			w.fatalf("a reply to %q, which was not asked or has been answered", r.Key)
		}
		delete(w.asked, r.Key)
		w.logf("reply %s: job %d, worker %d, %v", r.Key, r.Job, r.Worker, r.Err)
	}
	for i := range e.Facts {
		f := &e.Facts[i]
		w.logf("fact %+v", *f)
		if job := w.machine.Job(f.Job); f.Kind == state.JobEnded && job != nil {
			w.jobEnded(job)
		}
	}
	for _, dir := range e.Spools {
		for _, id := range w.machine.Jobs() {
			if w.machine.Job(id).Spec.Output == dir {
				for lease := range w.files[uint64(id)] {
					w.removeFile(uint64(id), lease, "its spool folder was removed")
				}
			}
		}
	}
}

func (w *world) jobEnded(job *state.Job) {
	if job.Status == state.JobDone && job.Spec.Spool {
		if why := w.missing(job, len(job.Stages)); why != "" {
			w.fatalf("job %d is done: %s", job.ID, why)
		}
	}
	if job.Status == state.JobStopped || job.Status == state.JobActive { // a retry starts afresh, or has in the same entry
		w.forgetWinners(job.ID)
	}
}

func (w *world) forgetWinners(id state.JobID) {
	for key := range w.winners {
		if key.Job == id {
			delete(w.winners, key)
		}
	}
}

// ask sends a client's request.
func (w *world) ask(add func(e *state.Entry, key string)) {
	w.lastKey++
	key := fmt.Sprint("ask", w.lastKey)
	w.asked[key] = true
	w.deliver(w.now, Command{Key: key, Add: func(e *state.Entry) { add(e, key) }})
}

func (w *world) someJob() state.JobID { return state.JobID(1 + w.rng.IntN(max(1, w.machine.Len()))) }

// chaos may do something to the cluster.
func (w *world) chaos() {
	s := w.workers[w.rng.IntN(len(w.workers))]
	switch dice := w.rng.IntN(1000); {
	case dice < 15 && len(w.machine.Live()) < 6:
		w.submit()
	case dice < 20:
		id := w.someJob()
		w.ask(func(e *state.Entry, key string) { e.Stop(key, id) })
	case dice < 28:
		id := w.someJob()
		w.ask(func(e *state.Entry, key string) { e.Retry(key, id) })
	case dice < 36:
		w.logf("%s loses its stream", s.name)
		s.disconnect(w.now, w.rng.IntN(3) > 0)
	case dice < 41:
		w.logf("%s crashes", s.name)
		s.crash(w.now)
	case dice < 46:
		s.hungUntil = w.now.Add(time.Duration(w.rng.IntN(5000)) * time.Millisecond)
		w.logf("%s hangs until %v", s.name, s.hungUntil.Sub(time.UnixMilli(1_000_000)))
	case dice < 51:
		s.cutUntil = w.now.Add(time.Duration(w.rng.IntN(5000)) * time.Millisecond)
		w.logf("%s is cut off", s.name)
		s.disconnect(w.now, w.rng.IntN(2) == 0)
	case dice < 54:
		w.elect()
	case dice < 57 && s.id != 0:
		id := state.WorkerID(s.id)
		w.ask(func(e *state.Entry, key string) { e.SetWorker(key, id, state.WorkerDraining) })
	case dice < 59 && s.id != 0:
		id := state.WorkerID(s.id)
		w.ask(func(e *state.Entry, key string) { e.SetWorker(key, id, state.WorkerRemoved) })
	case dice < 61 && s.welcomed && s.session != 0 && !s.gone:
		s.drain(w.now)
	case dice < 90 && s.gone: // somebody starts it again, with a fresh data directory or the old one
		w.logf("%s is started again", s.name)
		s.disconnect(w.now, true)
		s.crash(w.now)
		s.gone, s.id = false, 0
		if w.rng.IntN(2) == 0 {
			s.name += "'"
		}
	}
}

func (w *world) submit() {
	uid := fmt.Sprint("uid", w.lastKey)
	spec := &state.Spec{
		Name: uid, User: []string{"ann", "bob"}[w.rng.IntN(2)], Output: "/out/" + uid, Spool: w.rng.IntN(2) == 0, Collect: w.rng.IntN(3) == 0,
		KeepPartial: w.rng.IntN(4) == 0, FirstSuccess: w.rng.IntN(6) == 0, Retries: uint32(w.rng.IntN(4)), Priority: uint32(w.rng.IntN(3)),
	}
	switch w.rng.IntN(6) {
	case 0:
		spec.SlotsPerTask = 2
	case 1:
		spec.Memory = 60
	}
	n := int64(1 + w.rng.IntN([]int{3, 40, 400}[w.rng.IntN(3)]))
	if w.slow {
		n = min(n, 20)
	}
	spec.Input, _ = state.RangeInput(1, n)
	w.ask(func(e *state.Entry, key string) { e.Submit(key, uid, spec) })
}

// elect changes the leader: messages on their way are lost, and some of what was in flight to the log.
func (w *world) elect() {
	w.log.elect(w.t, w.rng.IntN(len(w.log.pending)+1))
	w.logf("term %d begins; index %d", w.log.term, w.log.index)
	if w.rng.IntN(2) == 0 {
		var b bytes.Buffer
		if _, err := w.machine.Snapshot().WriteTo(&b); err != nil {
			w.t.Fatal(err)
		}
		m, err := state.Restore(io.NopCloser(&b))
		if err != nil {
			w.t.Fatal(err)
		}
		w.machine, w.log.machine = m, m
	}
	w.inputs, w.asked = nil, map[string]bool{}
	for _, s := range w.workers {
		s.disconnect(w.now, false)
	}
	w.core = NewCore(CoreConfig{Machine: w.machine, Cluster: "model", Term: w.log.term, Now: w.now, Seed: w.log.term})
}

// check holds the books against each other.
func (w *world) check() {
	c := w.core
	if err := c.Check(); err != nil {
		w.fatalf("%v", err)
	}
	for id, worker := range c.registry.workers {
		load := int64(0)
		for _, l := range worker.leases {
			if !l.ended {
				load += l.cost
			}
		}
		books := reflect.ValueOf(&worker.Worker).Elem()
		if got := books.FieldByName("load").Int(); got != load {
			w.fatalf("worker %d: load %d, want %d", id, got, load)
		}
		if worker.Leases() == 0 && (books.FieldByName("strict").Int() != 0 || books.FieldByName("memoryUsed").Uint() != 0 || books.FieldByName("promised").Int() != 0) {
			w.fatalf("worker %d holds nothing, and yet: %+v", id, worker.Worker)
		}
	}
	for _, id := range c.machine.Jobs() {
		w.checkWinners(c.machine.Job(id))
	}
	if c.pipeline.idle() {
		w.checkIdle()
	}
}

// checkIdle: with nothing on its way through the log, nothing waits for it.
func (w *world) checkIdle() {
	if len(w.asked) > 0 && len(w.inputs) == 0 {
		w.fatalf("the log is idle; not answered: %v", w.asked)
	}
}

// checkWinners: a winner stays the winner.
func (w *world) checkWinners(job *state.Job) {
	if job.Status == state.JobStopping || job.Status == state.JobStopped {
		w.forgetWinners(job.ID)
		return
	}
	for i, stage := range job.Stages {
		for task := range stage.Tasks {
			key := newTaskKey(uint64(job.ID), uint64(i), task)
			out, ok := stage.Output(task)
			if was, known := w.winners[key]; known && (!ok || was != out.Winner) && stage.Role != state.RoleCommit {
				w.fatalf("task %v had the winner %d; now it has %d (%v)", key, was, out.Winner, ok)
			}
			if ok {
				w.winners[key] = out.Winner
			}
		}
	}
}

// settle stops the faults and waits for every job to end.
func (w *world) settle() {
	w.faults = false
	for _, s := range w.workers {
		s.hungUntil, s.cutUntil = time.Time{}, time.Time{}
		if s.gone || s.draining {
			s.disconnect(w.now, true)
			s.crash(w.now)
			s.gone, s.name = false, s.name+"*"
		}
	}
	w.workers = append(w.workers, &simWorker{w: w, name: "last", slots: 4, held: map[uint64]*simAttempt{}})
	end := w.now.Add(3 * time.Minute)
	for len(w.machine.Live()) > 0 && w.now.Before(end) {
		w.step()
	}
	if live := w.machine.Live(); len(live) > 0 {
		job := w.machine.Job(live[0])
		q := reflect.ValueOf(w.core.sched).Elem().FieldByName("queues").MapIndex(reflect.ValueOf(job.ID)).Elem()
		w.fatalf("jobs %v have not ended; %+v; scheduled: cursor %v, %v waiting, %v ready, %v later, held %v, reserved %v, %v leased", live, job.Spec,
			q.FieldByName("cursor"), q.FieldByName("waiting"), q.FieldByName("ready"), q.FieldByName("later"), q.FieldByName("held"),
			q.FieldByName("reserved"), q.FieldByName("leases"))
	}
	for range 500 { // verdicts, goodbyes and losses that are on their way
		w.step()
	}
	for id, worker := range w.core.registry.workers {
		if len(worker.leases) > 0 {
			w.fatalf("no job lives; worker %d still has the leases %v", id, worker.leases)
		}
	}
	for _, s := range w.workers {
		if len(s.held) > 0 && !s.gone { // one that was removed has left with what it held
			w.fatalf("no job lives; %s, in session %d, welcomed %v, worker %d, still holds %v", s.name, s.session, s.welcomed, s.id, s.order)
		}
	}
	books := reflect.ValueOf(w.core.sched).Elem()
	if books.FieldByName("users").Len() != 0 || books.FieldByName("queues").Len() != 0 {
		w.fatalf("no job lives; the scheduler has %+v", w.core.sched)
	}
	for _, id := range w.machine.Workers() {
		if info := w.machine.Worker(id); info.Status == state.WorkerAlive && w.core.registry.workers[id] == nil {
			w.fatalf("worker %d is alive for the log, and unknown to the leader", id)
		}
	}
}
