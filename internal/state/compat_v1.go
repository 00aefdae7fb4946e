package state

import (
	"maps"
	"slices"
)

// Version 1 of log entries and snapshots, which releases before feature level 1 read and write: positional, so nothing can be added. It is
// frozen. It is read for ever, and written while the cluster's level is 0.

// stringMap writes m in key order, so that equal maps have equal bytes.
func (e *encoder) stringMap(m map[string]string) {
	e.uint(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.string(k)
		e.string(m[k])
	}
}

func (e *encoder) strings(list []string) {
	e.uint(uint64(len(list)))
	for _, s := range list {
		e.string(s)
	}
}

func (d *decoder) stringMap() map[string]string {
	n := d.count()
	if n == 0 {
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := d.string()
		m[k] = d.string()
	}
	return m
}

func (d *decoder) strings() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, d.string())
	}
	return list
}

func (e *encoder) specV1(s *Spec) {
	e.string(s.Name)
	e.string(s.User)
	e.string(s.Builtin)
	e.uint(uint64(len(s.Argv)))
	for _, a := range s.Argv {
		e.bytes(a)
	}
	e.inputV1(&s.Input)
	e.strings(s.InputNames)
	e.string(s.Output)
	for _, b := range []bool{s.Spool, s.Overwrite, s.KeepPartial, s.FirstSuccess, s.Collect} {
		e.bool(b)
	}
	e.stringMap(s.Settings)
	e.string(s.Dir)
	for _, v := range []uint64{uint64(s.Retries), uint64(s.Priority), uint64(s.SlotsPerTask), s.TimeoutMS, s.Memory} {
		e.uint(v)
	}
	e.stringMap(s.Labels)
}

func (d *decoder) specV1() *Spec {
	s := &Spec{Name: d.string(), User: d.string(), Builtin: d.string()}
	for range d.count() {
		s.Argv = append(s.Argv, d.bytes())
	}
	s.Input = d.inputV1()
	s.InputNames = d.strings()
	s.Output = d.string()
	for _, b := range []*bool{&s.Spool, &s.Overwrite, &s.KeepPartial, &s.FirstSuccess, &s.Collect} {
		*b = d.bool()
	}
	s.Settings = d.stringMap()
	s.Dir = d.string()
	s.Retries, s.Priority, s.SlotsPerTask = d.uint32(), d.uint32(), d.uint32()
	s.TimeoutMS, s.Memory = d.uint(), d.uint()
	s.Labels = d.stringMap()
	s.Stages = DefaultPlan(s.Input.Tasks, s.Collect, !s.Spool)
	return s
}

func (e *encoder) inputV1(in *Input) {
	e.uint(uint64(in.Kind))
	e.uint(in.Tasks)
	e.uint(in.Bytes)
	e.int(in.From)
	e.uint(in.SplitSize)
	e.uint(uint64(len(in.Blocks)))
	for _, b := range in.Blocks {
		e.uint(b.First)
		e.bytes(b.Data)
	}
}

func (d *decoder) inputV1() Input {
	in := Input{Kind: InputKind(d.uint8()), Tasks: d.uint(), Bytes: d.uint(), From: d.int(), SplitSize: d.uint()}
	d.checkInput(&in)
	for range d.count() {
		in.Blocks = append(in.Blocks, Block{First: d.uint(), Data: d.bytes()})
	}
	return in
}

func (e *encoder) workerInfoV1(w *WorkerInfo) {
	e.string(w.Identity)
	e.string(w.Host)
	e.string(w.Address)
	e.string(w.Version)
	e.uint(uint64(w.Slots))
	e.uint(w.Memory)
	e.stringMap(w.Labels)
}

func (d *decoder) workerInfoV1() *WorkerInfo {
	return &WorkerInfo{
		Identity: d.string(), Host: d.string(), Address: d.string(), Version: d.string(),
		Slots: d.uint32(), Memory: d.uint(), Labels: d.stringMap(),
	}
}

func (e *encoder) failureV1(f *Failure) {
	e.uint(uint64(f.Kind))
	e.uint(uint64(f.Attempt))
	e.uint(uint64(f.Worker))
	e.uint(uint64(f.Lease))
	e.int(f.Time)
	e.string(f.Message)
}

func (d *decoder) failureV1() *Failure {
	f := &Failure{Kind: FailureKind(d.uint8())}
	if f.Kind >= failureKinds {
		d.fail()
	}
	f.Attempt, f.Worker, f.Lease, f.Time = d.uint32(), WorkerID(d.uint()), Lease(d.uint()), d.int()
	f.Message = d.string()
	return f
}

func (e *encoder) commandV1(kind int, c *command) {
	e.uint(uint64(kind))
	switch kind {
	case cmdSubmit:
		e.string(c.key)
		e.string(c.uid)
		e.specV1(c.spec)
	case cmdStop, cmdRetry, cmdForget:
		e.string(c.key)
		e.uint(uint64(c.job))
		e.uint(uint64(c.fence))
	case cmdDone:
		e.uint(uint64(c.worker))
		e.uint(uint64(c.job))
		e.uint(uint64(c.stage))
		e.completions(c.completions)
	case cmdFailed:
		e.uint(uint64(c.job))
		e.uint(uint64(c.stage))
		e.uint(c.task)
		e.failureV1(c.failure)
	case cmdRegister:
		e.string(c.key)
		e.workerInfoV1(c.info)
	case cmdWorker:
		e.string(c.key)
		e.uint(uint64(c.worker))
		e.uint(uint64(c.status))
	}
}

// commandV1 reads the next command into c, whose completions are appended to.
func (d *decoder) commandV1(c *command) (kind int) {
	switch kind = int(d.uint8()); kind {
	case cmdSubmit:
		c.key, c.uid, c.spec = d.string(), d.string(), d.specV1()
		c.sum = c.spec.requestSum()
	case cmdStop, cmdRetry, cmdForget:
		c.key, c.job, c.fence = d.string(), JobID(d.uint()), Lease(d.uint())
	case cmdDone:
		c.worker, c.job, c.stage = WorkerID(d.uint()), JobID(d.uint()), d.uint32()
		c.completions = d.completions(c.completions)
	case cmdFailed:
		c.job, c.stage, c.task = JobID(d.uint()), d.uint32(), d.uint()
		c.failure = d.failureV1()
	case cmdRegister:
		c.key, c.info = d.string(), d.workerInfoV1()
	case cmdWorker:
		c.key, c.worker, c.status = d.string(), WorkerID(d.uint()), WorkerStatus(d.uint8())
	default:
		d.fail()
	}
	return kind
}

func (w *recordWriter) machineV1(m *Machine) {
	w.write([]byte{snapshotV1})
	w.record(func(e *encoder) { e.headerV1(m) })
	w.record(func(e *encoder) { e.historyV1(&m.history) })
	w.jobs(m, (*encoder).jobV1, (*encoder).pageV1)
}

func (r *recordReader) headV1(m *Machine) (jobs uint64, err error) {
	if err := r.read("header", func(d *decoder) { jobs = d.headerV1(m) }); err != nil {
		return 0, err
	}
	return jobs, r.read("history", func(d *decoder) { m.history = d.historyV1() })
}

func (e *encoder) headerV1(m *Machine) {
	e.uint(m.index)
	e.int(m.time)
	e.uint(uint64(m.lastJob))
	e.uint(uint64(m.lastWorker))
	e.uint(uint64(len(m.workers)))
	for _, id := range m.Workers() {
		e.uint(uint64(id))
		e.uint(uint64(m.workers[id].Status))
		e.workerInfoV1(&m.workers[id].WorkerInfo)
	}
	e.uint(uint64(len(m.requests.order)))
	for _, q := range m.requests.order {
		e.string(q.key)
		e.uint(uint64(q.job))
		e.fixed(q.sum)
		e.int(q.time)
	}
	e.uint(uint64(len(m.jobs)))
}

func (d *decoder) headerV1(m *Machine) (jobs uint64) {
	m.index, m.time, m.lastJob, m.lastWorker = d.uint(), d.int(), JobID(d.uint()), WorkerID(d.uint())
	for range d.count() {
		w := &Worker{ID: WorkerID(d.uint()), Status: WorkerStatus(d.uint8()), WorkerInfo: *d.workerInfoV1()}
		if w.Status >= WorkerRemoved {
			d.fail()
		}
		m.restoreWorker(w)
	}
	for range d.count() {
		m.requests.add(&request{key: d.string(), job: JobID(d.uint()), sum: d.fixed(), time: d.int()})
	}
	return d.uint()
}

// roleNumberV1 is how version 1 names a stage: the name of each is that of its role.
func roleNumberV1(stage string) (n uint64) {
	for r := range stageRoles {
		if r.String() == stage {
			n = uint64(r)
		}
	}
	return n
}

func (e *encoder) historyV1(h *history) {
	facts, lost := h.kept()
	e.uint(lost.Index)
	e.uint(uint64(lost.Seq))
	e.uint(uint64(len(facts)))
	for i := range facts {
		f := &facts[i]
		e.uint(f.Index)
		e.uint(uint64(f.Seq))
		e.int(f.Time)
		e.uint(uint64(f.Kind))
		e.uint(uint64(f.Job))
		e.uint(roleNumberV1(f.Stage))
		e.uint(f.Task)
		e.uint(uint64(f.Worker))
		e.uint(uint64(f.JobStatus))
		e.uint(uint64(f.WorkerStatus))
		e.string(f.Detail)
	}
}

func (d *decoder) historyV1() history {
	h := history{lost: Position{Index: d.uint(), Seq: d.uint32()}}
	for range d.count() {
		f := Fact{Position: Position{Index: d.uint(), Seq: d.uint32()}, Time: d.int(), Kind: EventKind(d.uint8()), Job: JobID(d.uint())}
		role := StageRole(d.uint8())
		f.Task, f.Worker = d.uint(), WorkerID(d.uint())
		if f.Kind == StageStarted || f.Kind == TaskDied {
			f.Stage = role.String()
		}
		f.JobStatus, f.WorkerStatus = JobStatus(d.uint8()), WorkerStatus(d.uint8())
		f.Detail = d.string()
		if d.err != nil {
			break
		}
		h.facts = append(h.facts, f)
	}
	d.checkHistory(&h)
	return h
}

func (e *encoder) jobV1(j *Job) {
	e.uint(uint64(j.ID))
	e.string(j.UID)
	e.specV1(j.Spec)
	e.uint(uint64(j.Status))
	e.uint(uint64(j.currentV1()))
	e.int(j.Created)
	e.int(j.Started)
	e.int(j.Ended)
	e.string(j.Error)
	e.uint(j.ReadBytes)
	e.uint(j.OutputBytes)
	e.uint(j.Records)
	e.uint(uint64(j.Fence))
	e.uint(uint64(len(j.Stages)))
	for _, s := range j.Stages {
		e.uint(uint64(s.Role))
		e.uint(uint64(s.Action))
		e.uint(s.Tasks)
		e.uint(s.Done)
		e.uint(s.Dead)
		e.uint(s.Failed)
		e.bool(s.Closed)
		e.uint(uint64(len(s.failed)))
		for _, i := range slices.Sorted(maps.Keys(s.failed)) {
			e.uint(i)
			e.uint(uint64(len(s.failed[i])))
			for k := range s.failed[i] {
				e.failureV1(&s.failed[i][k])
			}
		}
	}
}

// currentV1 is the number of the one stage that runs, or that ran last: in version 1 the plan is a line.
func (j *Job) currentV1() int {
	if i := j.commitStage(); i >= 0 && j.Stages[i].Action != Commit {
		return i // it cleans up, and the others are as they were
	}
	if i := slices.IndexFunc(j.Stages, func(s *Stage) bool { return !s.complete() }); i >= 0 {
		return i
	}
	return len(j.Stages) - 1
}

func (d *decoder) jobV1() *Job {
	j := &Job{ID: JobID(d.uint()), UID: d.string(), Spec: d.specV1(), Status: JobStatus(d.uint8())}
	d.uint() // currentV1
	j.Created, j.Started, j.Ended, j.Error = d.int(), d.int(), d.int(), d.string()
	j.ReadBytes, j.OutputBytes, j.Records = d.uint(), d.uint(), d.uint()
	j.Fence = Lease(d.uint())
	for i := range d.count() {
		role, s, tasks := StageRole(d.uint8()), &Stage{Action: CommitAction(d.uint8())}, d.uint()
		if i >= len(j.Spec.Stages) || role != j.Spec.Stages[i].Role || tasks != j.Spec.Stages[i].Tasks {
			d.fail()
		}
		s.Done, s.Dead, s.Failed, s.Closed = d.uint(), d.uint(), d.uint(), d.bool()
		s.failed = d.failuresV1()
		j.Stages = append(j.Stages, s)
	}
	return j
}

func (d *decoder) failuresV1() map[uint64][]Failure {
	n := d.count()
	if n == 0 {
		return nil
	}
	m := make(map[uint64][]Failure, n)
	for range n {
		i := d.uint()
		var list []Failure
		for range d.count() {
			list = append(list, *d.failureV1())
		}
		m[i] = list
	}
	return m
}

func (e *encoder) pageV1(number uint64, p *page) {
	e.uint(number)
	e.statuses(p)
	e.winners(p)
	e.bool(p.out != nil)
	if p.out != nil {
		e.outputs(p.out)
	}
	e.bool(p.failures != nil)
	if p.failures != nil {
		e.failureColumns(p.failures)
	}
}

func (d *decoder) pageV1(s *Stage) *page {
	p := d.addPage(s, d.uint())
	d.statuses(p)
	d.winners(p)
	if d.bool() {
		p.out = d.outputs()
	}
	if d.bool() {
		p.failures = d.failureColumns()
	}
	return p
}
