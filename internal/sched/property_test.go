package sched

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bridgefour/bridgefour/internal/state"
)

// out is a lease that the model has out.
type out struct {
	job    *state.Job
	worker *Worker
	task   uint64
	cost   int64
}

type apartTask struct {
	job  state.JobID
	task uint64
}

// model drives a scheduler as a leader does, and knows which leases are out.
type model struct {
	s       *Scheduler
	machine *state.Machine
	now     time.Time
	workers []*Worker
	live    []*state.Job
	leases  []out
	apart   map[apartTask]bool
	leased  map[state.JobID]map[uint64]bool
	lease   state.Lease // the last one that won
	started map[state.JobID]time.Time
}

func (m *model) apply(t *rapid.T, add func(e *state.Entry)) {
	e := state.NewEntry(1, state.FeatureLevel)
	add(e)
	if err := m.machine.Apply(m.machine.Index()+1, e.Data(), &state.Result{}); err != nil {
		t.Fatal(err)
	}
}

func (m *model) submit(t *rapid.T) {
	spec := &state.Spec{
		Output: fmt.Sprint("/", m.machine.Len()), User: userGen.Draw(t, "user"), Retries: 200,
		Priority: rapid.Uint32Range(0, 2).Draw(t, "priority"),
	}
	switch rapid.IntRange(0, 5).Draw(t, "sort") {
	case 0:
		spec.SlotsPerTask = rapid.Uint32Range(1, 2).Draw(t, "slots")
	case 1:
		spec.Memory = 40
	case 2:
		spec.DelayMS = 100
	}
	if rapid.IntRange(0, 2).Draw(t, "resources") == 0 {
		spec.Resources = state.Resources(map[string]int{"gpu": rapid.IntRange(0, 2).Draw(t, "gpu"), "license": rapid.IntRange(0, 1).Draw(t, "license")})
	}
	if rapid.IntRange(0, 3).Draw(t, "paced") == 0 {
		spec.MaxRunning = rapid.Uint32Range(1, 3).Draw(t, "running")
	}
	if rapid.Bool().Draw(t, "files") {
		files := state.NewFiles(0)
		for i := range rapid.IntRange(1, 20).Draw(t, "number") {
			files.AddFile(fmt.Appendf(nil, "f%d", i), state.Version{Size: rapid.Uint64Range(0, 3).Draw(t, "size")}, false)
		}
		spec.Input, _ = files.Input()
	} else {
		spec.Input, _ = state.RangeInput(1, rapid.Int64Range(1, 50).Draw(t, "tasks"))
	}
	before := m.machine.Len()
	m.apply(t, func(e *state.Entry) { e.Submit("", "uid", spec.User, spec) })
	ids := m.machine.Jobs()
	if len(ids) == before { // the quota does not allow its tasks
		return
	}
	job := m.machine.Job(ids[len(ids)-1])
	m.live = append(m.live, job)
	m.leased[job.ID] = map[uint64]bool{}
	held := rapid.IntRange(0, 3).Draw(t, "held") == 0
	m.s.Start(job, 0, held)
	if !held {
		return
	}
	for range rapid.IntRange(0, 3).Draw(t, "adopted") {
		w := rapid.SampledFrom(m.workers).Draw(t, "worker")
		m.adopt(w, job, rapid.Uint64Range(0, job.Stages[0].Tasks-1).Draw(t, "task"))
	}
}

var userGen = rapid.SampledFrom([]string{"ann", "bob"})

// quota changes what a user may use.
func (m *model) quota(t *rapid.T) {
	q := state.Quota{User: userGen.Draw(t, "user"), Slots: rapid.Uint32Range(0, 4).Draw(t, "slots"), Weight: rapid.Uint32Range(0, 3).Draw(t, "weight")}
	m.apply(t, func(e *state.Entry) { e.SetQuota("", q) })
	m.s.SetQuotas(m.machine.Access().Quotas())
}

// used is how many slots the leases of a user occupy.
func (m *model) used(user string) (n int) {
	for _, w := range m.workers {
		need := 0
		for _, l := range m.leases {
			if l.worker == w && l.job.Spec.User == user {
				need += slots(l.job.Spec)
			}
		}
		n += min(need, w.Slots)
	}
	return n
}

func (m *model) adopt(w *Worker, job *state.Job, task uint64) {
	if m.leased[job.ID][task] || job.Stages[0].Status(task) != state.TaskOpen {
		return
	}
	m.leased[job.ID][task], m.started[job.ID] = true, m.now
	m.leases = append(m.leases, out{job, w, task, m.s.Adopt(m.now, w, Key{job.ID, 0}, task)})
}

// next takes one grant for w, and checks it.
func (m *model) next(t *rapid.T, w *Worker) bool {
	w.Apart = slices.ContainsFunc(m.leases, func(l out) bool { return l.worker == w && m.apart[apartTask{l.job.ID, l.task}] })
	apart := w.Apart
	want := m.naive(w)
	before := map[string]int{}
	for name := range m.s.users {
		before[name] = m.used(name)
	}
	g, ok := m.s.Next(m.now, w)
	if got := g.Job; !ok && want != nil || ok && got != want {
		t.Fatalf("worker %d is granted tasks of job %v, want %v", w.ID, got, want)
	}
	if !ok {
		return false
	}
	if len(g.Tasks) == 0 || len(g.Tasks) > grantTasks {
		t.Fatalf("a grant of %d tasks", len(g.Tasks))
	}
	for _, task := range g.Tasks {
		if m.leased[g.Job.ID][task] {
			t.Fatalf("task %d/%d is granted, and leased already", g.Job.ID, task)
		}
		if g.Job.Stages[g.Stage].Status(task) != state.TaskOpen {
			t.Fatalf("task %d/%d is granted, and not open", g.Job.ID, task)
		}
		if m.apart[apartTask{g.Job.ID, task}] {
			if apart {
				t.Fatalf("worker %d is granted task %d/%d, which runs apart, beside another such task", w.ID, g.Job.ID, task)
			}
			apart = true
		}
		m.leased[g.Job.ID][task] = true
		m.leases = append(m.leases, out{g.Job, w, task, g.Cost})
	}
	m.checkPace(t, &g)
	m.checkLong(t, w)
	user := g.Job.Spec.User
	if used, quota := m.used(user), m.s.Use(user).Slots; quota > 0 && used > max(int(quota), before[user]) {
		t.Fatalf("user %s is granted %d slots, and the quota is %d", user, used, quota)
	}
	return true
}

// checkPace: no more tasks of a job run than may, nor start within its delay.
func (m *model) checkPace(t *rapid.T, g *Grant) {
	spec, running := g.Job.Spec, len(m.leased[g.Job.ID])
	if spec.MaxRunning > 0 && running > int(spec.MaxRunning) {
		t.Fatalf("%d tasks of job %d run, of which %d may", running, g.Job.ID, spec.MaxRunning)
	}
	if spec.DelayMS > 0 {
		if since := m.now.Sub(m.started[g.Job.ID]); len(g.Tasks) > 1 || since < time.Duration(spec.DelayMS)*time.Millisecond {
			t.Fatalf("%d tasks of job %d start %v after the last one", len(g.Tasks), g.Job.ID, since)
		}
	}
	m.started[g.Job.ID] = m.now
}

// checkLong: what is granted as long never takes more slots than there are, nor more memory or resources.
func (m *model) checkLong(t *rapid.T, w *Worker) {
	long, memory, adopted := 0, uint64(0), false
	taken := map[string]uint64{}
	for _, l := range m.leases {
		if l.worker == w && l.cost >= Slot {
			long += int(max(1, l.job.Spec.SlotsPerTask))
			memory += l.job.Spec.Memory
			for _, r := range l.job.Spec.Resources {
				taken[r.Name] += r.N
			}
			adopted = adopted || m.adopted(l)
		}
	}
	if !adopted && (long > w.Slots || w.Memory > 0 && memory > w.Memory) {
		t.Fatalf("worker %d with %d slots and %d bytes holds leases for %d slots and %d bytes", w.ID, w.Slots, w.Memory, long, memory)
	}
	for name, n := range taken {
		if !adopted && n > of(w.Resources, name) || n != w.used[name] {
			t.Fatalf("worker %d with %v holds leases for %d of %s; the scheduler counts %d", w.ID, w.Resources, n, name, w.used[name])
		}
	}
}

// adopted leases are what a worker came back with, more than it would be given perhaps.
func (m *model) adopted(l out) bool {
	q := m.s.queue(Key{l.job.ID, 0})
	if q == nil {
		return false
	}
	_, yes := q.skip[l.task]
	return yes
}

func (m *model) end(t *rapid.T) {
	if len(m.leases) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.leases)-1).Draw(t, "lease")
	l := m.leases[i]
	m.leases = append(m.leases[:i], m.leases[i+1:]...)
	delete(m.leased[l.job.ID], l.task)
	m.s.Return(l.worker, l.job, 0, 1, l.cost)
	switch rapid.IntRange(0, 3).Draw(t, "end") {
	case 0:
		m.apply(t, func(e *state.Entry) { e.Failed(l.job.ID, 0, l.task, state.Failure{Kind: state.Preempted}, nil) })
		apart := rapid.Bool().Draw(t, "apart")
		m.apart[apartTask{l.job.ID, l.task}] = apart
		m.s.Reopen(Key{l.job.ID, 0}, l.task, m.now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "back-off"))*time.Millisecond), l.worker.ID, apart)
	case 1:
		m.s.Reopen(Key{l.job.ID, 0}, l.task, m.now, 0, m.apart[apartTask{l.job.ID, l.task}])
		if rapid.Bool().Draw(t, "comes back") { // another worker, or the same, turns out to hold it
			m.adopt(rapid.SampledFrom(m.workers).Draw(t, "worker"), l.job, l.task)
		}
	default:
		m.s.Observe(Key{l.job.ID, 0}, 1, rapid.SampledFrom([]uint64{0, 10, 5000, 100_000}).Draw(t, "micros"))
		m.done(t, l)
	}
}

// lost loses the output of a task that is done.
func (m *model) lost(t *rapid.T) {
	if len(m.live) == 0 {
		return
	}
	job := rapid.SampledFrom(m.live).Draw(t, "job")
	task := rapid.Uint64Range(0, job.Stages[0].Tasks-1).Draw(t, "task")
	if output, done := job.Stages[0].Output(task); done {
		m.apply(t, func(e *state.Entry) { e.OutputLost(job.ID, 0, task, output.Winner, 1, "gone") })
		m.s.Resume(job, 0, task, m.now)
	}
}

func (m *model) done(t *rapid.T, l out) {
	m.lease++
	m.apply(t, func(e *state.Entry) {
		e.Done(l.worker.ID, l.job.ID, 0, []state.Completion{{Index: l.task, Lease: m.lease}})
	})
	if !l.job.Ready(0) { // a commit stage, of which this test knows nothing
		m.s.End(l.job.ID)
	}
}

// TestProperties: no task is granted twice at a time; every task is granted in the end; when all is given back, nothing is in
// the books.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{s: New(), machine: state.New(), now: epoch, leased: map[state.JobID]map[uint64]bool{}, started: map[state.JobID]time.Time{}, apart: map[apartTask]bool{}}
		for i := range rapid.IntRange(1, 3).Draw(t, "workers") {
			m.workers = append(m.workers, &Worker{
				ID: state.WorkerID(i + 1), Slots: rapid.IntRange(1, 3).Draw(t, "slots"), Memory: rapid.SampledFrom([]uint64{0, 100}).Draw(t, "memory"),
				Resources: state.Resources(map[string]int{"gpu": rapid.IntRange(0, 3).Draw(t, "gpu")}),
			})
		}
		m.workers[0].Slots, m.workers[0].Memory = 3, 100 // it can run anything
		m.workers[0].Resources = []state.Resource{{Name: "gpu", N: 2}, {Name: "license", N: 1}}
		if err := m.machine.Apply(1, state.RaiseLevel(1, state.FeatureLevel, "test").Data(), &state.Result{}); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"submit": m.submit,
			"end":    m.end,
			"lost":   m.lost,
			"quota":  m.quota,
			"next":   func(t *rapid.T) { m.next(t, rapid.SampledFrom(m.workers).Draw(t, "worker")) },
			"time": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(0, 500).Draw(t, "ms")) * time.Millisecond)
			},
			"release": func(*rapid.T) { m.s.Release() },
			"leave":   func(t *rapid.T) { m.s.Leave(rapid.SampledFrom(m.workers).Draw(t, "worker")) },
			"":        m.check,
		})
		m.finish(t)
	})
}

// naive returns the job whose turn it is on a worker, after the reservation that is due there: it looks at every job.
func (m *model) naive(w *Worker) *state.Job {
	m.s.wake(m.now)
	holder := m.s.holder(m.now, w)
	if w.load >= int64(w.Slots)*Slot {
		return nil
	}
	all := slices.SortedFunc(maps.Values(m.s.jobs), func(a, b *jobQueue) int {
		u, v := a.share.user, b.share.user
		return cmp.Or(cmp.Compare(b.job.Spec.Priority, a.job.Spec.Priority), cmp.Compare(float64(u.load)/float64(u.weight()), float64(v.load)/float64(v.weight())),
			cmp.Compare(a.load, b.load), cmp.Compare(a.job.ID, b.job.ID))
	})
	fits := holder != nil && holder.share.group.fits(w)
	for _, j := range all {
		if fits && j.job.Spec.Priority <= holder.job.Spec.Priority {
			return holder.job
		}
		q := m.s.stageFor(m.now, j, w)
		switch {
		case q == nil || !j.share.group.eligible(w) || q.strict() && j.share.user.free() < j.share.group.Slots:
		case m.s.room(m.now, q, w) > 0:
			return j.job
		case q.strict() && m.s.mayReserve(j, w):
			m.s.reserve(m.now, j, w)
			return m.naive(w)
		}
	}
	return nil
}

// check compares the scheduler's account with the model's.
func (m *model) check(t *rapid.T) {
	for _, w := range m.workers {
		load, n := int64(0), 0
		for _, l := range m.leases {
			if l.worker == w {
				load += l.cost
				n++
			}
		}
		if err := w.Check(n, load); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.s.Check(); err != nil {
		t.Fatal(err)
	}
	for name := range m.s.users {
		reserved := 0
		for _, j := range m.s.reserved {
			if j.job.Spec.User == name {
				reserved += slots(j.job.Spec)
			}
		}
		if got, want := m.s.Use(name).Used, m.used(name)+reserved; got != want {
			t.Fatalf("user %s uses %d slots, want %d", name, got, want)
		}
	}
	for _, job := range m.live {
		if got := m.s.Leased(job.ID); m.s.jobs[job.ID] != nil && got != len(m.leased[job.ID]) {
			t.Fatalf("job %d: %d leased, want %d", job.ID, got, len(m.leased[job.ID]))
		}
	}
}

// finish lets everything end well.
func (m *model) finish(t *rapid.T) {
	m.s.Release()
	m.s.SetQuotas(&state.Quotas{})
	for range 10_000 {
		m.now = m.now.Add(2 * time.Second)
		granted := false
		for _, w := range m.workers {
			for m.next(t, w) {
				granted = true
			}
		}
		if !granted && len(m.leases) == 0 {
			break
		}
		for _, l := range m.leases {
			delete(m.leased[l.job.ID], l.task)
			m.s.Return(l.worker, l.job, 0, 1, l.cost)
			m.done(t, l)
		}
		m.leases = m.leases[:0]
	}
	for _, job := range m.live {
		if stage := job.Stages[0]; stage.Done != stage.Tasks {
			t.Fatalf("job %d: %d of %d tasks were granted in the end", job.ID, stage.Done, stage.Tasks)
		}
	}
	m.check(t)
	for _, w := range m.workers {
		if err := w.Check(0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if !m.s.Empty() {
		t.Fatalf("all was given back; the scheduler has %+v", m.s)
	}
}
