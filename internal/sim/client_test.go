package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// caller sends requests to leaders.
type caller struct {
	process

	rng    *rand.Rand
	leader addr // of the last request
}

// client sends requests about jobs, one after the other, and repeats those that get no answer.
type client struct {
	caller

	number int
	mine   []*jobPlan
	next   int // of mine: to be submitted
	seen   map[addr]servedAt
	idle   bool // it has no more requests
}

// servedAt is the log position of a node's last answer to this client.
type servedAt struct {
	life  int
	index uint64
}

// jobPlan is a job that a client will submit, and what determines the outcome of its attempts.
type jobPlan struct {
	key     string
	uid     string
	files   int  // that it reads; 0: numbers
	packed  int  // of them in a task beside the first one
	pure    bool // all attempts of a task make the same output
	spec    *state.Spec
	mean    time.Duration
	failing int    // attempts in a thousand
	poison  int    // tasks in a thousand that always fail
	lot     uint64 // seed of its attempts
	id      state.JobID
	index   uint64 // log position of its acknowledgement: from there on readers must see it
}

// reply is the answer of a node.
type reply struct {
	from     addr
	life     int
	again    bool // not carried out: try another node
	leader   addr // for the next request; 0: none is known
	unknown  bool // carried out or not
	event    state.Event
	index    uint64 // the log position that it reflects
	missing  bool
	status   state.JobStatus
	progress uint64
	refused  bool
	fence    uint64 // of a lock that is held
}

const (
	callTimeout = 3 * time.Second
	thinkMax    = 800 * time.Millisecond
)

// planJobs draws the jobs of all clients.
func (w *World) planJobs() {
	for i := range w.cfg.Jobs {
		rng := stream(w.cfg.Seed, "job", uint64(i))
		p := &jobPlan{key: fmt.Sprint(jobKey, i), uid: fmt.Sprint("uid", i), lot: rng.Uint64()}
		n := 1 + rng.IntN(w.cfg.Tasks)
		if w.cfg.Plain {
			n = w.cfg.Tasks
		}
		p.mean = w.cfg.Mean/4 + time.Duration(rng.Int64N(int64(2*w.cfg.Mean)))
		p.failing = w.cfg.Failing
		if p.failing > 0 && oneIn(rng, 4) {
			p.poison = 1 + rng.IntN(50)
		}
		p.spec = &state.Spec{
			Name: p.uid, User: []string{"ann", "bob"}[rng.IntN(2)], Output: "/out/" + p.uid, Spool: oneIn(rng, 3), Collect: oneIn(rng, 3),
			KeepPartial: oneIn(rng, 4), FirstSuccess: oneIn(rng, 8), Retries: uint32(rng.IntN(5)), Priority: uint32(rng.IntN(3)),
		}
		if w.cfg.Slots != 1 && oneIn(rng, 6) {
			p.spec.SlotsPerTask = 2
		}
		if !w.cfg.Plain && oneIn(rng, 6) {
			p.spec.Memory = 60
		}
		p.spec.Input, _ = state.RangeInput(1, int64(n)) // n is at least 1
		switch {
		case w.cfg.Plain:
		case oneOf(p.lot, 4):
			p.spec.Stages = twoInputs(uint64(n), !p.spec.Spool)
		case oneOf(p.lot>>24, 3):
			p.spec.FirstSuccess = false // all outputs are needed
			p.spec.Stages = twoReduces(uint64(n), p.spec.Collect, !p.spec.Spool)
			p.pure = oneOf(p.lot>>32, 2)
		case oneOf(p.lot>>8, 3):
			p.files, p.packed = n, int(p.lot>>40%3) //nolint:gosec // below 3
		case n >= 4 && oneOf(p.lot>>16, 3):
			p.spec.Input = longLines(n)
		}
		w.shareData(p, i)
		w.plans[p.uid] = p
		c := w.clients[i%len(w.clients)]
		c.mine = append(c.mine, p)
	}
}

// twoInputs is a plan with two stages side by side. It is recorded at feature level 1; below that a job has the default plan.
func twoInputs(tasks uint64, publish bool) []state.StageSpec {
	plan := []state.StageSpec{
		{Name: "left", Role: state.RoleMap, Tasks: tasks},
		{Name: "right", Role: state.RoleMap, Tasks: tasks},
		{Name: "merge", Role: state.RoleCollect, Tasks: 1, From: []uint32{0, 1}},
	}
	if publish {
		plan = append(plan, state.StageSpec{Name: "publish", Role: state.RoleCommit, Tasks: 1, From: []uint32{0, 1, 2}})
	}
	return plan
}

// twoReduces is a plan with two stages that reduce, one after the other.
func twoReduces(tasks uint64, collect, publish bool) []state.StageSpec {
	ends := []state.StageRole{state.RoleCheck}
	if publish {
		ends[0] = state.RoleCommit
	}
	if collect {
		ends = slices.Insert(ends, 0, state.RoleCollect)
	}
	return state.LinePlan([]state.StageSpec{{Name: "map", Tasks: tasks}, {Name: "count", Tasks: 3}, {Name: "sort", Tasks: 2, Ranges: true}}, ends...)
}

// live starts the client.
func (c *client) live() {
	c.start()
	c.after(between(c.rng, 0, thinkMax), c.act)
}

// act sends the next request.
func (c *client) act() {
	if c.w.now > c.w.cfg.Span && c.next == len(c.mine) {
		c.idle = true
		return
	}
	again := func() { c.after(between(c.rng, 0, thinkMax), c.act) }
	p := c.known()
	switch dice := c.rng.IntN(100); {
	case c.next < len(c.mine) && (dice < 40 || p == nil || c.w.now > c.w.cfg.Span):
		p := c.mine[c.next]
		c.next++
		c.submit(p, again)
	case p == nil:
		again()
	case dice < 50:
		c.command(opStop, p, again)
	case dice < 62:
		c.command(opRetry, p, again)
	case dice < 80:
		c.read(p, strongRead, again)
	case dice < 90:
		c.read(p, indexRead, again)
	default:
		c.read(p, staleRead, again)
	}
}

// known returns a job that was acknowledged to some client; nil if there is none.
func (c *client) known() *jobPlan {
	var list []*jobPlan
	for _, p := range c.w.clients[c.rng.IntN(len(c.w.clients))].mine {
		if p.id != 0 {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[c.rng.IntN(len(list))]
}

// ask sends a request to a node and waits for its answer, callTimeout at most.
func (c *caller) ask(to *simLeader, handle func(l *simLeader, answer func(reply)), then func(reply)) {
	done := false
	finish := func(r reply) {
		if !done {
			done = true
			then(r)
		}
	}
	c.after(callTimeout, func() { finish(reply{unknown: true}) })
	net := c.w.net
	net.once(c.addr, &to.process, func() {
		life := to.life
		handle(to, func(r reply) {
			r.from, r.life = to.addr, life
			net.once(to.addr, &c.process, func() { finish(r) }, nil)
		})
	}, func() { finish(reply{again: true}) })
}

// target is the node for the next request.
func (c *caller) target() *simLeader {
	if l := c.w.leaders[c.leader]; l != nil {
		return l
	}
	all := c.w.members()
	return all[c.rng.IntN(len(all))]
}

// redirect follows the leader of a reply.
func (c *caller) redirect(r reply) {
	c.leader = r.leader
	if r.unknown {
		c.leader = 0
	}
}

// submit repeats a submit with one key until it is answered.
func (c *client) submit(p *jobPlan, then func()) {
	if p.files > 0 && p.spec.Input.Kind != state.InputFiles {
		if c.w.oracle.state.Level() < 2 {
			p.packed = 0
		}
		p.spec.Input = c.w.inputs.list(p)
	}
	op := c.w.history.call(c.number, c.w.now, request{opSubmit, p.key})
	c.ask(c.target(), func(l *simLeader, answer func(reply)) { l.submit(p, answer) }, func(r reply) {
		c.redirect(r)
		switch {
		case r.again || r.unknown:
			if r.again {
				c.w.history.forget(op)
			}
			c.after(between(c.rng, 20*time.Millisecond, 500*time.Millisecond), func() { c.submit(p, then) })
			return
		case r.event.Err != nil && isShared(p.key) && c.w.now < c.w.cfg.Span: // there were no locks yet
			c.w.history.forget(op)
			c.after(between(c.rng, time.Second, 5*time.Second), func() { c.submit(p, then) })
			return
		case r.event.Err != nil:
			c.w.fail("submit of %q is refused: %v", p.key, r.event.Err)
		}
		if p.id != 0 && p.id != r.event.Job {
			c.w.fail("submit of %q was answered with job %d, and with job %d", p.key, p.id, r.event.Job)
		}
		c.w.history.answered(op, c.w.now, answer{job: r.event.Job})
		p.id, p.index = r.event.Job, r.index
		then()
	})
}

// command stops or retries a job. It is not repeated if its outcome is unknown.
func (c *client) command(kind opKind, p *jobPlan, then func()) {
	op := c.w.history.call(c.number, c.w.now, request{kind, p.key})
	c.w.asks++
	key := fmt.Sprint("ask/", c.number, "/", c.w.asks)
	c.ask(c.target(), func(l *simLeader, answer func(reply)) {
		add := func(e *state.Entry) { e.Stop(key, p.id) }
		if kind == opRetry {
			changed := c.w.inputs.changed(l.controller.Machine().Job(p.id))
			add = func(e *state.Entry) { e.Retry(key, p.id, changed...) }
		}
		l.write(key, add, answer)
	}, func(r reply) {
		c.redirect(r)
		switch {
		case r.again:
			c.w.history.forget(op)
		case !r.unknown:
			c.w.history.answered(op, c.w.now, answer{refused: r.event.Err != nil})
			p.index = max(p.index, r.index)
		}
		then()
	})
}

// consistency of a read.
type consistency uint8

const (
	staleRead consistency = iota
	indexRead
	strongRead
)

// read reads a job, at any node.
func (c *client) read(p *jobPlan, how consistency, then func()) {
	all := c.w.members()
	to := all[c.rng.IntN(len(all))]
	op := -1
	if how == strongRead {
		op = c.w.history.call(c.number, c.w.now, request{opRead, p.key})
	}
	want := p.index
	id := p.id
	c.ask(to, func(l *simLeader, answer func(reply)) { l.read(id, how, want, answer) }, func(r reply) {
		if !r.again && !r.unknown {
			c.judge(r, how, want)
			if how == strongRead {
				c.w.history.answered(op, c.w.now, answer{missing: r.missing, status: r.status, done: r.progress})
			}
			c.w.stats.Reads++
		}
		then()
	})
}

// judge checks a read against its consistency.
func (c *client) judge(r reply, how consistency, want uint64) {
	if how == indexRead && (r.index < want || r.missing) {
		c.w.fail("leader %d was asked for a state of at least %d, and answers with %d (job missing: %v)", r.from, want, r.index, r.missing)
	}
	was := c.seen[r.from]
	if was.life == r.life && r.index < was.index {
		c.w.fail("leader %d answers client %d with the state of %d, after that of %d", r.from, c.number, r.index, was.index)
	}
	c.seen[r.from] = servedAt{r.life, r.index}
}

// fate is the outcome of an attempt that is not disturbed.
type fate struct {
	takes   time.Duration
	size    uint64 // of its file; 0: it leaves none
	failure *wire.Failure
}

// fate draws the outcome from the seed of the job: it depends on the task and the attempt number alone.
func (w *World) fate(a *attempt, number uint32) fate {
	job := w.oracle.state.Job(a.job)
	if job == nil {
		return fate{takes: time.Millisecond}
	}
	p := w.plans[job.UID]
	x := lot(p.lot, uint64(a.stage), a.task, uint64(number))
	f := fate{takes: time.Duration(float64(p.mean) * (0.2 + 1.6*float64(x%1024)/1024))}
	if oneOf(x>>10, 50) {
		f.takes *= 8
	}
	if !w.cfg.Plain && !oneOf(x>>20, 3) {
		f.size = 8 + x>>32%1000
	}
	if p.pure {
		f.size = 8 + lot(p.lot, uint64(a.stage), a.task)%1000
	}
	poisoned := lot(p.lot, uint64(a.stage), a.task)%1000 < uint64(p.poison) && a.stage == 0
	if poisoned || w.now < w.cfg.Span && int(x>>40%1000) < p.failing { // after the faults only poisoned tasks fail
		f.failure = failureOf(lot(x, 1))
	}
	return f
}

// failureOf draws the failure of an attempt.
func failureOf(x uint64) *wire.Failure {
	kinds := []wire.FailureKind{
		wire.FailureKind_PROGRAM_ERROR, wire.FailureKind_PROGRAM_ERROR, wire.FailureKind_TIMEOUT, wire.FailureKind_OUT_OF_MEMORY,
		wire.FailureKind_BAD_PROGRAM, wire.FailureKind_OUTPUT_ERROR, wire.FailureKind_PREEMPTED, wire.FailureKind_BAD_INPUT,
	}
	return &wire.Failure{Kind: kinds[x%uint64(len(kinds))], Message: "bad luck"}
}

func oneOf(x, n uint64) bool { return x%n == 0 }
