package leader

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transcript"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestTranscripts plays testdata/*.txt: a core in virtual time, with a log that commits after a millisecond, and scripted
// workers. A file consists of blocks: commands, a line "----", and what the core did; an empty line ends a block. Each command that is
// an input is a step. `go test -update` writes the answers. A lease is written TERM.SEQUENCE:JOB/STAGE/INDEX, or JOB/STAGE/INDEX
// if it is the last one of its task.
//
//	hello SESSION IDENTITY [inc=X] [slots=N] [label=V] [memory=N] [id=N] [held=LEASE,…] [stopping=LEASE,…] [older]
//	expect ID                                   a worker with this id is to come
//	beat SESSION [LEASE…]                       a heartbeat: these leases run
//	beating SESSION…                            these repeat their last heartbeat every 300 ms from here on
//	finish SESSION LEASE… [took=D] [bytes=N] [age=N]       fail SESSION LEASE KIND
//	lost SESSION LEASE…         the outputs of these leases cannot be read
//	return SESSION LEASE…   draining SESSION   drained SESSION   close SESSION
//	submit UID [tasks=N] [output=DIR] [retries=N] [slots=N] [label=V] [collect] [keep_partial] [first_success] [no_second] [lines=A,B,…] [user=U] [max_fails=N] [retry_delay=D] [delay=D] [running=N] [lock=NAME] [grace=D]
//	quota U SLOTS                               0: no bound
//	stop J   retry J   drain W   remove W
//	run DURATION                                time passes
//	sleep DURATION                              time passes while the leader is stopped
//	log hold|go|lose                            nothing is committed; all is; what waits is lost
//	leader                                      a new term
//	together … end                              the commands between come in one step, and one entry
//	job J   books   locks
func TestTranscripts(t *testing.T) {
	transcript.Run(t, "testdata", func(t *testing.T) func([][]string) string {
		t.Helper()
		return newStory(t).block
	})
}

// story is the state of one transcript.
type story struct {
	t        *testing.T
	b        strings.Builder
	start    time.Time
	now      time.Time
	machine  *state.Machine
	log      *testLog
	core     *Core
	sessions map[string]SessionID
	running  map[string][]uint64
	beating  map[string]time.Time // next heartbeat
	requests int
	last     map[string]uint64 // lease of a task
	together []Input           // nil: each input is a step
}

func newStory(t *testing.T) *story {
	t.Helper()
	s := &story{
		t: t, start: time.UnixMilli(0), now: time.UnixMilli(0), machine: state.New(), sessions: map[string]SessionID{}, running: map[string][]uint64{},
		beating: map[string]time.Time{}, last: map[string]uint64{},
	}
	if err := s.machine.Apply(1, state.RaiseLevel(0, state.FeatureLevel, "test").Data(), &state.Result{}); err != nil {
		t.Fatal(err)
	}
	s.log = &testLog{machine: s.machine, term: 1, latency: func() time.Duration { return time.Millisecond }}
	s.core = NewCore(CoreConfig{Machine: s.machine, Cluster: "test", Term: 1, Now: s.now, Seed: 1})
	return s
}

func (s *story) block(commands [][]string) string {
	s.b.Reset()
	for _, words := range commands {
		s.command(words)
	}
	return s.b.String()
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(&s.b, "%4dms %s\n", s.now.Sub(s.start).Milliseconds(), fmt.Sprintf(format, args...))
}

func (s *story) number(text string) uint64 {
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *story) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// lease reads TERM.SEQUENCE, or JOB/STAGE/INDEX: the last lease of that task.
func (s *story) lease(text string) uint64 {
	if strings.Contains(text, "/") {
		if s.last[text] == 0 {
			s.t.Fatalf("%s was never leased", text)
		}
		return s.last[text]
	}
	term, seq, _ := strings.Cut(text, ".")
	return uint64(state.NewLease(s.number(term), s.number(seq)))
}

func (s *story) leases(list []string) []uint64 {
	var out []uint64
	for _, text := range list {
		out = append(out, s.lease(text))
	}
	return out
}

// place is a lease and its task.
type place struct {
	lease, job, index uint64
	stage             uint32
}

func (s *story) place(text string) place {
	lease, task, given := strings.Cut(text, ":")
	if !given {
		task = lease
	}
	w := strings.Split(task, "/")
	if len(w) != 3 {
		s.t.Fatalf("%q is not LEASE:JOB/STAGE/INDEX", text)
	}
	return place{s.lease(lease), s.number(w[0]), s.number(w[2]), uint32(s.number(w[1]))}
}

func (s *story) command(words []string) {
	list, set := transcript.Options(words[1:])
	switch words[0] {
	case "run":
		s.run(s.now.Add(s.duration(list[0])))
	case "sleep":
		s.now = s.now.Add(s.duration(list[0]))
		s.step()
	case "log":
		s.log.held = list[0] == "hold"
		if list[0] == "lose" {
			s.log.pending = nil
		}
	case "leader":
		s.log.elect(s.t, len(s.log.pending))
		s.core = NewCore(CoreConfig{Machine: s.machine, Cluster: "test", Term: s.log.term, Now: s.now, Seed: 1})
		clear(s.beating)
		s.step()
	case "together":
		s.together = []Input{}
	case "end":
		inputs := s.together
		s.together = nil
		s.step(inputs...)
	case "beating":
		for _, name := range list {
			s.beating[name] = s.now
		}
	case "job":
		s.job(state.JobID(s.number(list[0])))
	case "books":
		s.books()
	case "locks":
		s.locks()
	default:
		if in := s.input(words[0], list, set); s.together != nil {
			s.together = append(s.together, in)
		} else {
			s.step(in)
		}
	}
}

// input makes the input of a command.
func (s *story) input(command string, list []string, set map[string]string) Input {
	switch command {
	case "submit", "stop", "retry", "drain", "remove", "quota", "expect":
		s.requests++
		key := fmt.Sprintf("%s#%d", command, s.requests)
		return Command{Key: key, Add: s.request(command, key, list, set)}
	case "hello":
		return s.hello(list, set)
	case "drained":
		return Drained{s.sessions[list[0]]}
	case "close":
		delete(s.beating, list[0])
		return Closed{s.sessions[list[0]]}
	}
	r := &wire.Report{}
	switch command {
	case "beat":
		s.running[list[0]] = s.leases(list[1:])
		r.Heartbeat, r.Running = true, s.running[list[0]]
	case "return":
		r.Returned = s.leases(list[1:])
	case "draining":
		r.Heartbeat, r.Draining = true, true
	case "finish":
		took := time.Second
		if set["took"] != "" {
			took = s.duration(set["took"])
		}
		for _, text := range list[1:] {
			p := s.place(text)
			r.Finished = append(r.Finished, &wire.Finished{
				Job: p.job, Stage: p.stage, Index: []uint64{p.index}, Lease: []uint64{p.lease}, Size: []uint64{1}, Micros: []uint64{uint64(took.Microseconds())},
				InputBytes: []uint64{s.number(set["bytes"])}, AgeMs: []uint64{s.number(set["age"])},
			})
		}
	case "lost":
		for _, text := range list[1:] {
			p := s.place(text)
			r.Lost = append(r.Lost, &wire.OutputLost{Job: p.job, Stage: p.stage, Index: p.index, Lease: p.lease})
		}
	case "fail":
		p := s.place(list[1])
		r.Failed = []*wire.Failure{{
			Job: p.job, Stage: p.stage, Index: p.index, Lease: p.lease, Kind: wire.FailureKind(wire.FailureKind_value[list[2]]), Message: "it said no",
		}}
	default:
		s.t.Fatalf("unknown command %q", command)
	}
	return Report{s.sessions[list[0]], r}
}

func (s *story) hello(list []string, set map[string]string) Input {
	id := SessionID(len(s.sessions) + 1)
	s.sessions[list[0]] = id
	h := &wire.Hello{
		Identity: list[1], Incarnation: list[1] + set["inc"], Address: list[1] + ":1", Slots: uint32(max(1, s.number(set["slots"]))),
		Memory: s.number(set["memory"]),
	}
	if set["slots"] == "0" {
		h.Slots = 0
	}
	if set["id"] != "" {
		h.Claim = s.number(set["id"]) + 1
	}
	if set["label"] != "" {
		h.Labels = map[string]string{"label": set["label"]}
	}
	h.Ends = !slices.Contains(list, "older")
	h.Held, h.Stopping = s.held(set["held"]), s.held(set["stopping"])
	return Hello{id, h}
}

func (s *story) held(list string) (held []*wire.Held) {
	if list == "" {
		return nil
	}
	for text := range strings.SplitSeq(list, ",") {
		p := s.place(text)
		held = append(held, &wire.Held{Job: p.job, Stage: p.stage, Index: p.index, Lease: p.lease})
	}
	return held
}

func (s *story) locks() {
	for l := range s.machine.Locks() {
		status := "waits"
		switch {
		case l.Over:
			status = "is over"
		case l.Held():
			status = "holds"
		}
		s.say("request %d of job %d %s", l.ID, l.Job, status)
		for _, r := range s.core.Remnants(s.now, l.ID) {
			if r.Lost {
				s.say("  worker %d counts for %v", r.Worker, r.Left)
			} else {
				s.say("  worker %d is stopping attempts", r.Worker)
			}
		}
	}
	s.say("attempts of void leases, by job: %v", s.core.leftovers.jobs)
}

func (s *story) request(command, key string, list []string, set map[string]string) func(e *state.Entry) {
	switch command {
	case "submit":
		return func(e *state.Entry) { spec := s.spec(list, set); e.Submit(key, list[0], spec.User, spec) }
	case "quota":
		return func(e *state.Entry) {
			e.SetQuota(key, state.Quota{User: list[0], Slots: uint32(s.number(list[1]))})
		}
	case "expect":
		return func(e *state.Entry) { e.Register(key, &state.WorkerInfo{Claim: s.number(list[0]) + 1}) }
	case "stop":
		return func(e *state.Entry) { e.Stop(key, state.JobID(s.number(list[0]))) }
	case "retry":
		return func(e *state.Entry) { e.Retry(key, state.JobID(s.number(list[0]))) }
	case "drain":
		return func(e *state.Entry) { e.SetWorker(key, state.WorkerID(s.number(list[0])), state.WorkerDraining) }
	}
	return func(e *state.Entry) { e.SetWorker(key, state.WorkerID(s.number(list[0])), state.WorkerRemoved) }
}

func (s *story) spec(list []string, set map[string]string) *state.Spec {
	spec := &state.Spec{
		User: set["user"], Output: set["output"], Retries: uint32(s.number(set["retries"])), SlotsPerTask: uint32(s.number(set["slots"])),
		Collect: slices.Contains(list, "collect"), KeepPartial: slices.Contains(list, "keep_partial"), FirstSuccess: slices.Contains(list, "first_success"),
	}
	if spec.Output == "" {
		spec.Spool, spec.Output = true, "/spool/"+list[0]
	}
	if set["lock"] != "" {
		spec.Locks = []state.LockName{{Name: set["lock"]}}
	}
	for name, ms := range map[string]*uint64{"retry_delay": &spec.RetryDelayMS, "delay": &spec.DelayMS, "grace": &spec.GraceMS} {
		if d := set[name]; d != "" {
			*ms = uint64(s.duration(d).Milliseconds())
		}
	}
	spec.MaxRunning = uint32(s.number(set["running"]))
	spec.NoSecond = slices.Contains(list, "no_second")
	if n := set["max_fails"]; n != "" {
		spec.MaxFails = &state.FailLimit{N: s.number(n)}
	}
	if set["label"] != "" {
		spec.Labels = map[string]string{"label": set["label"]}
	}
	spec.Input, _ = state.RangeInput(1, int64(max(1, s.number(set["tasks"]))))
	if set["lines"] != "" {
		lines := state.NewLines()
		for line := range strings.SplitSeq(set["lines"], ",") {
			lines.AddLine([]byte(line))
		}
		spec.Input, _ = lines.Input()
	}
	return spec
}

// run lets time pass: the core is stepped at its wake-up time, when the log commits an entry, and when a heartbeat is due.
func (s *story) run(until time.Time) {
	for {
		next := s.core.wake()
		if at, ok := s.log.next(); ok {
			next = earlier(next, at)
		}
		for _, at := range s.beating {
			next = earlier(next, at)
		}
		if next.After(until) {
			s.now = until
			return
		}
		if next.After(s.now) {
			s.now = next
		}
		s.step()
	}
}

func (s *story) step(inputs ...Input) {
	inputs = append(slices.Clone(inputs), s.log.committed(s.now)...)
	for _, name := range slices.Sorted(maps.Keys(s.beating)) {
		if at := s.beating[name]; !at.After(s.now) {
			s.beating[name] = at.Add(heartbeat)
			inputs = append(inputs, Report{s.sessions[name], &wire.Report{Heartbeat: true, Running: s.running[name]}})
		}
	}
	e, err := s.core.Step(s.now, inputs...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.log.propose(s.now, e.Propose)
	for i := range e.Facts {
		s.fact(&e.Facts[i])
	}
	for i := range e.Replies {
		r := &e.Replies[i]
		text := fmt.Sprintf("reply %s:", r.Key)
		if r.Job != 0 {
			text += fmt.Sprintf(" job %d", r.Job)
		}
		if r.Worker != 0 {
			text += fmt.Sprintf(" worker %d", r.Worker)
		}
		if r.Err != nil {
			text += " " + r.Err.Error()
		}
		s.say("%s", text)
	}
	for _, m := range e.Send {
		s.sent(s.name(m.Session), m.Message)
	}
	for _, c := range e.Close {
		refused := ""
		if c.Refused {
			refused = "for good, "
		}
		s.say("%s is closed, %sbecause %s", s.name(c.Session), refused, c.Reason)
		delete(s.beating, s.name(c.Session))
	}
	for _, q := range e.Quarantines {
		if q.Cause == NotQuarantined {
			s.say("worker %d is no longer quarantined", q.Worker)
		} else {
			s.say("worker %d is quarantined as %v for %v", q.Worker, q.Cause, q.For)
		}
	}
	for _, dir := range e.Spools {
		s.say("spool %s is not needed any more", dir)
	}
	if len(e.Forgotten) > 0 {
		s.say("forgotten: %v", e.Forgotten)
	}
}

func (s *story) name(id SessionID) string {
	for name, session := range s.sessions {
		if session == id {
			return name
		}
	}
	return fmt.Sprint("session ", id)
}

func (s *story) fact(f *state.Event) {
	switch f.Kind {
	case state.JobSubmitted:
		s.say("job %d is submitted", f.Job)
	case state.StageStarted:
		s.say("job %d: stage %d begins", f.Job, f.Stage)
	case state.JobEnding, state.JobEnded:
		if job := s.machine.Job(f.Job); job != nil {
			s.say("job %d is %v %s", f.Job, job.Status, job.Error)
		}
	case state.TaskDied:
		s.say("task %d/%d/%d is dead: %v on worker %d", f.Job, f.Stage, f.Task, f.Fault, f.Worker)
	case state.WorkerJoined:
		s.say("worker %d has joined", f.Worker)
	case state.WorkerChanged:
		status := state.WorkerRemoved
		if w := s.machine.Worker(f.Worker); w != nil {
			status = w.Status
		}
		s.say("worker %d is %v", f.Worker, status)
	case state.TaskReopened, state.TaskLost, state.StageEnded, state.JobForgotten, state.RequestApplied, state.QuotasChanged, state.Audited, state.JobWaits, state.StageGrown, state.InputDue,
		state.LockHeld, state.LockWaiting, state.LockGone, state.LockOver, state.PriorityChanged, state.WorkerQuarantined, state.WorkerReleased:
		s.say("fact %+v", *f)
	}
}

func leaseName(number uint64) string {
	l := state.Lease(number)
	return fmt.Sprintf("%d.%d", l.Term(), uint64(l-state.NewLease(l.Term(), 0)))
}

func leaseNames(list []uint64) string {
	var names []string
	for _, n := range list {
		names = append(names, leaseName(n))
	}
	return strings.Join(names, " ")
}

func (s *story) sent(to string, m *wire.ToWorker) {
	switch m := m.GetMessage().(type) {
	case *wire.ToWorker_Welcome:
		text := fmt.Sprintf("to %s: welcome, worker %d, in term %d", to, m.Welcome.GetWorker(), m.Welcome.GetTerm())
		if m.Welcome.GetDrain() {
			text += ", drain"
		}
		if r := m.Welcome.GetRevoked(); len(r) > 0 {
			text += "; revoked " + leaseNames(r)
		}
		s.say("%s", text)
	case *wire.ToWorker_Work:
		s.work(to, m.Work)
	case *wire.ToWorker_Drain:
		text := "drain"
		if m.Drain.GetWait() {
			text = "wait"
		}
		s.say("to %s: %s", to, text)
	case *wire.ToWorker_Log:
		s.say("to %s: send the log of job %d", to, m.Log.GetJob())
	}
}

func (s *story) work(to string, w *wire.Work) {
	var parts []string
	for _, j := range w.GetJobs() {
		parts = append(parts, fmt.Sprintf("job %d is %v in %s", j.GetId(), j.GetStages(), j.GetOutput()))
	}
	if c := w.GetCommitted(); len(c) > 0 {
		parts = append(parts, "committed "+leaseNames(c))
	}
	if c := w.GetStale(); len(c) > 0 {
		parts = append(parts, "stale "+leaseNames(c))
	}
	if c := w.GetEnded(); len(c) > 0 {
		parts = append(parts, fmt.Sprintf("ended %v", c))
	}
	for _, l := range w.GetLeases() {
		for i, index := range l.GetIndex() {
			task := fmt.Sprintf("%d/%d/%d", l.GetJob(), l.GetStage(), index)
			s.last[task] = l.GetFirstLease() + uint64(i)
			text := fmt.Sprintf("lease %s:%s", leaseName(s.last[task]), task)
			if a := l.GetAttempt(); len(a) > 0 {
				text += fmt.Sprintf("#%d", a[i])
			}
			if l.GetAction() != 0 {
				text += " " + l.GetAction().String()
			}
			if len(l.GetSplits()) > 0 {
				text += fmt.Sprintf(" %q", l.GetSplits()[i].GetItem())
			}
			parts = append(parts, text)
		}
	}
	s.say("to %s: %s", to, strings.Join(parts, "; "))
}

// statusText is the public status of a job.
func statusText(job *state.Job, c *Core) string {
	switch {
	case job.Status == state.JobDone, job.Status == state.JobFailed, job.Status == state.JobStopped:
		return job.Status.String()
	case c.Leased(job.ID) > 0:
		return "running"
	case !c.Eligible(job):
		return "halted"
	case job.Started == 0:
		return "waiting"
	}
	return "running"
}

func (s *story) job(id state.JobID) {
	job := s.machine.Job(id)
	text := fmt.Sprintf("job %d is %s (%v) %s", id, statusText(job, s.core), job.Status, job.Error)
	for _, stage := range job.Stages {
		text += fmt.Sprintf("; %s %d/%d done, %d dead, %d failed", stage.Name, stage.Done, stage.Tasks, stage.Dead, stage.Failed)
	}
	s.say("%s", text)
}

func (s *story) books() {
	c := s.core
	for _, id := range slices.Sorted(maps.Keys(c.registry.workers)) {
		w := c.registry.workers[id]
		text := fmt.Sprintf("worker %d: %d leases", id, w.Leases())
		var ended []uint64
		for number, l := range w.leases {
			if l.ended {
				ended = append(ended, uint64(number))
			}
		}
		slices.Sort(ended)
		if len(ended) > 0 {
			text += ", ended " + leaseNames(ended)
		}
		for i, on := range []bool{w.lost, w.quarantine.active(), w.draining, w.session == nil} {
			if on {
				text += []string{", lost", ", quarantined", ", draining", ", no session"}[i]
			}
		}
		s.say("%s", text)
	}
	s.say("%d uncommitted, %d entries in flight, %d wait", c.pipeline.uncommitted, c.pipeline.inFlight, len(c.pipeline.sealed))
}
