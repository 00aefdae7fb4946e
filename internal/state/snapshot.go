package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
)

// The first byte of a snapshot. The records of version 1 are positional (compat_v1.go), those of version 2 are tagged.
const (
	snapshotV1 = 1
	snapshotV2 = 2
)

// snapshotRecordMax bounds a record, so that a damaged length is refused before anything is allocated.
const (
	snapshotRecordMax  = 1 << 30
	snapshotRecordStep = 1 << 18 // allocated before the record is read
)

// Snapshot is the state at one log position. It shares the pages of tasks with the machine, which copies them before a change, and
// everything that only grows or never changes. Taking a snapshot costs microseconds per live job; it can be written in another
// goroutine while Apply continues.
type Snapshot struct {
	machine *Machine
}

// Snapshot returns the current state.
func (m *Machine) Snapshot() *Snapshot {
	c := &Machine{
		index: m.index, time: m.time, lastJob: m.lastJob, lastWorker: m.lastWorker,
		jobs: maps.Clone(m.jobs), workers: maps.Clone(m.workers), requests: requests{order: m.requests.order}, history: m.history,
		level: m.level, needs: m.needs,
	}
	for _, id := range m.live { // ended jobs do not change
		c.jobs[id] = m.jobs[id].clone()
	}
	m.epoch++
	return &Snapshot{machine: c}
}

// Index is the log position of the snapshot.
func (s *Snapshot) Index() uint64 { return s.machine.index }

// WriteTo writes the snapshot: a version byte, then records, each preceded by its length. Equal states give equal bytes.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	m := s.machine
	out := recordWriter{w: w}
	if m.level == 0 {
		out.machineV1(m)
	} else {
		out.machine(m)
	}
	return out.n, out.err
}

func (w *recordWriter) machine(m *Machine) {
	w.write([]byte{snapshotV2})
	w.record(func(e *encoder) { e.format(m) })
	w.record(func(e *encoder) { e.header(m) })
	w.record(func(e *encoder) { e.history(&m.history) })
	w.jobs(m, (*encoder).job, (*encoder).page)
}

func (w *recordWriter) jobs(m *Machine, write func(*encoder, *Job), writePage func(*encoder, uint64, *page)) {
	for _, id := range m.Jobs() {
		job := m.jobs[id]
		w.record(func(e *encoder) { write(e, job) })
		for _, stage := range job.Stages {
			for n, page := range stage.all() {
				w.record(func(e *encoder) { writePage(e, n, page) })
			}
			w.record(func(*encoder) {}) // an empty record ends the pages of a stage
		}
	}
}

// Restore reads what WriteTo wrote. The error is an ErrVersion if a newer program can read it.
func Restore(r io.Reader) (*Machine, error) {
	in := recordReader{r: r}
	var version [1]byte
	if _, err := io.ReadFull(r, version[:]); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	m := New()
	var jobs uint64
	var err error
	switch version[0] {
	case snapshotV1:
		in.job, in.page = (*decoder).jobV1, (*decoder).pageV1
		jobs, err = in.headV1(m)
	case snapshotV2:
		in.job, in.page = (*decoder).job, (*decoder).page
		jobs, err = in.head(m)
	default:
		d := decoder{}
		d.newer(fmt.Sprintf("version %d", version[0]))
		err = d.finish("snapshot")
	}
	if err != nil {
		return nil, err
	}
	for range jobs {
		job, err := in.readJob()
		if err != nil {
			return nil, err
		}
		m.jobs[job.ID] = job
	}
	if uint64(len(m.jobs)) != jobs {
		return nil, fmt.Errorf("snapshot: a job occurs twice: %w", errShort)
	}
	for _, id := range m.Jobs() {
		if !m.jobs[id].Status.Ended() {
			m.live = append(m.live, id)
		}
	}
	return m, nil
}

// head reads the records before the jobs, and returns the number of jobs. The first one tells whether this program can read the rest.
func (r *recordReader) head(m *Machine) (jobs uint64, err error) {
	if err := r.read("format", func(d *decoder) { d.format(m) }); err != nil {
		return 0, err
	}
	r.needs = m.needs
	if err := r.read("header", func(d *decoder) { jobs = d.header(m) }); err != nil {
		return 0, err
	}
	return jobs, r.read("history", func(d *decoder) { m.history = d.history() })
}

func (e *encoder) format(m *Machine) {
	e.uintField(1, uint64(m.level))
	e.stringField(2, m.needs)
}

func (d *decoder) format(m *Machine) {
	for n := range d.fields() {
		switch n {
		case 1:
			m.level = d.uint32()
		case 2:
			m.needs = d.string()
			d.needs = m.needs
		default:
			d.unknown(n, "the snapshot's format")
		}
	}
	if m.level > FeatureLevel {
		d.newer(fmt.Sprintf("feature level %d", m.level))
	}
	if m.level == 0 {
		d.fail()
	}
}

// header writes workers, requests and counters.
func (e *encoder) header(m *Machine) {
	e.uintField(1, m.index)
	e.intField(2, m.time)
	e.uintField(3, uint64(m.lastJob))
	e.uintField(4, uint64(m.lastWorker))
	for _, id := range m.Workers() {
		w := m.workers[id]
		e.nest(5, func() {
			e.uintField(1, uint64(w.ID))
			e.uintField(2, uint64(w.Status))
			e.nest(3, func() { e.workerInfo(&w.WorkerInfo) })
		})
	}
	for _, q := range m.requests.order {
		e.nest(6, func() {
			e.stringField(1, q.key)
			e.uintField(2, uint64(q.job))
			e.fixedField(3, q.sum)
			e.intField(4, q.time)
		})
	}
	e.uintField(7, uint64(len(m.jobs)))
}

// header reads them into m, and returns the number of jobs.
func (d *decoder) header(m *Machine) (jobs uint64) {
	for n := range d.fields() {
		switch n {
		case 1:
			m.index = d.uint()
		case 2:
			m.time = d.int()
		case 3:
			m.lastJob = JobID(d.uint())
		case 4:
			m.lastWorker = WorkerID(d.uint())
		case 5:
			m.restoreWorker(nested(d, (*decoder).worker))
		case 6:
			m.requests.add(nested(d, (*decoder).request))
		case 7:
			jobs = d.uint()
		default:
			d.unknown(n, "the snapshot's header")
		}
	}
	return jobs
}

func (m *Machine) restoreWorker(w *Worker) { m.workers[w.ID], m.byIdentity[w.Identity] = w, w.ID }

func (d *decoder) worker() *Worker {
	w := &Worker{}
	for n := range d.fields() {
		switch n {
		case 1:
			w.ID = WorkerID(d.uint())
		case 2:
			w.Status = WorkerStatus(d.uint8())
		case 3:
			w.WorkerInfo = nested(d, (*decoder).workerInfo)
		default:
			d.unknown(n, "a worker")
		}
	}
	if w.Status >= WorkerRemoved {
		d.fail()
	}
	return w
}

func (d *decoder) request() *request {
	q := &request{}
	for n := range d.fields() {
		switch n {
		case 1:
			q.key = d.string()
		case 2:
			q.job = JobID(d.uint())
		case 3:
			q.sum = d.fixed()
		case 4:
			q.time = d.int()
		default:
			d.unknown(n, "a request")
		}
	}
	return q
}

func (e *encoder) job(j *Job) {
	e.uintField(1, uint64(j.ID))
	e.stringField(2, j.UID)
	e.nest(3, func() { e.spec(j.Spec) })
	e.uintField(4, uint64(j.Status))
	e.intField(5, j.Created)
	e.intField(6, j.Started)
	e.intField(7, j.Ended)
	e.stringField(8, j.Error)
	e.uintField(9, j.ReadBytes)
	e.uintField(10, j.OutputBytes)
	e.uintField(11, j.Records)
	e.uintField(12, uint64(j.Fence))
	for _, s := range j.Stages {
		e.nest(13, func() { e.stage(s) })
	}
}

func (d *decoder) job() *Job {
	j := &Job{}
	for n := range d.fields() {
		switch n {
		case 1:
			j.ID = JobID(d.uint())
		case 2:
			j.UID = d.string()
		case 3:
			j.Spec = nested(d, (*decoder).spec)
		case 4:
			j.Status = JobStatus(d.uint8())
		case 5:
			j.Created = d.int()
		case 6:
			j.Started = d.int()
		case 7:
			j.Ended = d.int()
		case 8:
			j.Error = d.string()
		case 9:
			j.ReadBytes = d.uint()
		case 10:
			j.OutputBytes = d.uint()
		case 11:
			j.Records = d.uint()
		case 12:
			j.Fence = Lease(d.uint())
		case 13:
			j.Stages = append(j.Stages, nested(d, (*decoder).stage))
		default:
			d.unknown(n, "a job")
		}
	}
	return j
}

// checkJob refuses a job that the machine cannot have, and gives each stage its part of the plan.
func (d *decoder) checkJob(j *Job) {
	if j.Spec == nil || j.Status > JobStopped || len(j.Stages) != len(j.Spec.Stages) {
		d.fail()
		return
	}
	for i, s := range j.Stages {
		s.StageSpec = j.Spec.Stages[i]
		if s.Action > Abort || (s.Action != 0) != (s.Role == RoleCommit) {
			d.fail()
		}
	}
}

// stage writes all of a stage but its part of the plan and its pages.
func (e *encoder) stage(s *Stage) {
	e.uintField(1, uint64(s.Action))
	e.uintField(2, s.Done)
	e.uintField(3, s.Dead)
	e.uintField(4, s.Failed)
	e.boolField(5, s.Closed)
	e.uintField(6, uint64(s.Fence))
	for _, i := range slices.Sorted(maps.Keys(s.failed)) {
		e.nest(7, func() {
			e.uintField(1, i)
			for k := range s.failed[i] {
				e.nest(2, func() { e.failure(&s.failed[i][k]) })
			}
		})
	}
}

func (d *decoder) stage() *Stage {
	s := &Stage{}
	for n := range d.fields() {
		switch n {
		case 1:
			s.Action = CommitAction(d.uint8())
		case 2:
			s.Done = d.uint()
		case 3:
			s.Dead = d.uint()
		case 4:
			s.Failed = d.uint()
		case 5:
			s.Closed = d.bool()
		case 6:
			s.Fence = Lease(d.uint())
		case 7:
			if s.failed == nil {
				s.failed = map[uint64][]Failure{}
			}
			task, list := d.failures()
			s.failed[task] = list
		default:
			d.unknown(n, "a stage")
		}
	}
	return s
}

// failures reads the failures of one task.
func (d *decoder) failures() (task uint64, list []Failure) {
	d.nest(func() {
		for n := range d.fields() {
			switch n {
			case 1:
				task = d.uint()
			case 2:
				list = append(list, nested(d, (*decoder).failure))
			default:
				d.unknown(n, "a task's failures")
			}
		}
	})
	return task, list
}

// page writes the columns of a page, each packed.
func (e *encoder) page(number uint64, p *page) {
	e.uintField(1, number)
	e.nest(2, func() { e.statuses(p) })
	e.nest(3, func() { e.winners(p) })
	if p.out != nil {
		e.nest(4, func() { e.outputs(p.out) })
	}
	if p.failures != nil {
		e.nest(5, func() { e.failureColumns(p.failures) })
	}
	if p.run != nil {
		e.nest(6, func() { e.runs(p.run) })
	}
}

// page reads a page of s.
func (d *decoder) page(s *Stage) *page {
	var number uint64
	var p *page
	for n := range d.fields() {
		if n == 1 {
			number = d.uint()
			continue
		}
		if p == nil {
			p = d.addPage(s, number)
		}
		d.nest(func() {
			switch n {
			case 2:
				d.statuses(p)
			case 3:
				d.winners(p)
			case 4:
				p.out = d.outputs()
			case 5:
				p.failures = d.failureColumns()
			case 6:
				p.run = d.runs()
			default:
				d.unknown(n, "a page of tasks")
			}
		})
	}
	if p == nil {
		d.fail()
	}
	return p
}

// addPage adds page number to s.
func (d *decoder) addPage(s *Stage, number uint64) *page {
	if number >= MaxTasks/pageTasks || number*pageTasks >= s.Tasks {
		d.fail()
		return &page{}
	}
	return s.writable(number*pageTasks, 0)
}

func (e *encoder) statuses(p *page) {
	for _, s := range p.status {
		e.buf = append(e.buf, byte(s))
	}
}

func (d *decoder) statuses(p *page) {
	for i := range p.status {
		if p.status[i] = TaskStatus(d.uint8()); p.status[i] > TaskDead {
			d.fail()
		}
	}
}

func (e *encoder) winners(p *page) {
	var last int64
	for _, w := range p.winner {
		e.int(int64(w) - last)
		last = int64(w)
	}
}

func (d *decoder) winners(p *page) {
	var last int64
	for i := range p.winner {
		last += d.int()
		p.winner[i] = Lease(last)
	}
}

func (e *encoder) outputs(out *outputs) {
	for i := range pageTasks {
		e.uint(out.size[i])
		e.uint(out.records[i])
		if out.size[i] > 0 {
			e.fixed(out.checksum[i])
		}
	}
}

func (d *decoder) outputs() *outputs {
	out := &outputs{}
	for i := range pageTasks {
		out.size[i], out.records[i] = d.uint(), d.uint()
		if out.size[i] > 0 {
			out.checksum[i] = d.fixed()
		}
	}
	return out
}

func (e *encoder) failureColumns(t *failureColumns) {
	for i, ended := range t.ended {
		e.uint(uint64(ended))
		if ended > 0 {
			e.buf = append(e.buf, t.counts[i][:]...)
		}
	}
}

func (d *decoder) failureColumns() *failureColumns {
	t := &failureColumns{}
	for i := range t.ended {
		if t.ended[i] = d.uint32(); t.ended[i] > 0 {
			d.copyTo(t.counts[i][:])
		}
	}
	return t
}

func (e *encoder) runs(r *runs) {
	for i := range pageTasks {
		e.uint(uint64(r.worker[i]))
		e.uint(uint64(r.started[i]))
		e.uint(uint64(r.millis[i]))
	}
}

func (d *decoder) runs() *runs {
	r := &runs{}
	for i := range pageTasks {
		r.worker[i], r.started[i], r.millis[i] = d.uint32(), d.uint32(), d.uint32()
	}
	return r
}

// recordWriter writes records; the first error sticks.
type recordWriter struct {
	w   io.Writer
	enc encoder
	n   int64
	err error
}

func (w *recordWriter) write(b []byte) {
	if w.err == nil {
		var n int
		n, w.err = w.w.Write(b)
		w.n += int64(n)
	}
}

func (w *recordWriter) record(fill func(*encoder)) {
	w.enc.buf = w.enc.buf[:0]
	fill(&w.enc)
	if len(w.enc.buf) > snapshotRecordMax && w.err == nil {
		w.err = fmt.Errorf("snapshot: a record of %d bytes; %d is the most that could be read back", len(w.enc.buf), snapshotRecordMax)
	}
	w.write(binary.LittleEndian.AppendUint32(nil, uint32(len(w.enc.buf))))
	w.write(w.enc.buf)
}

// recordReader reads the records of a snapshot, with the decoders of its version.
type recordReader struct {
	r     io.Reader
	job   func(*decoder) *Job
	page  func(*decoder, *Stage) *page
	needs string
}

func (r *recordReader) record() (*decoder, error) {
	var size [4]byte
	if _, err := io.ReadFull(r.r, size[:]); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > snapshotRecordMax {
		return nil, fmt.Errorf("snapshot: record of %d bytes: %w", n, errShort)
	}
	// The buffer of a large record grows while it is read: a damaged length must not allocate a gigabyte.
	var buf bytes.Buffer
	buf.Grow(int(min(n, snapshotRecordStep)) + bytes.MinRead)
	if _, err := io.CopyN(&buf, r.r, int64(n)); err != nil {
		return nil, fmt.Errorf("snapshot: record of %d bytes: %w", n, err)
	}
	return &decoder{buf: buf.Bytes(), needs: r.needs}, nil
}

// read reads the next record; what names it in errors.
func (r *recordReader) read(what string, read func(*decoder)) error {
	d, err := r.record()
	if err != nil {
		return err
	}
	read(d)
	return d.finish("snapshot: %s", what)
}

func (r *recordReader) readJob() (*Job, error) {
	var j *Job
	if err := r.read("job", func(d *decoder) {
		if j = r.job(d); d.err == nil {
			d.checkJob(j)
		}
	}); err != nil {
		return nil, err
	}
	for _, stage := range j.Stages {
		var have Stage
		for {
			d, err := r.record()
			if err != nil {
				return nil, err
			}
			if len(d.buf) == 0 {
				break
			}
			p := r.page(d, stage)
			if err := d.finish("snapshot: page"); err != nil {
				return nil, err
			}
			have.sum(p)
		}
		if have.Done != stage.Done || have.Dead != stage.Dead || have.Failed != stage.Failed {
			return nil, fmt.Errorf("snapshot: job %d, stage %s: the counts of its tasks are %d done, %d dead, %d failures, not %d, %d, %d: %w",
				j.ID, stage.Name, have.Done, have.Dead, have.Failed, stage.Done, stage.Dead, stage.Failed, errShort)
		}
	}
	return j, nil
}

// sum adds the tasks of p to the stage's counts.
func (s *Stage) sum(p *page) {
	for _, status := range p.status {
		switch status {
		case TaskDone:
			s.Done++
		case TaskDead:
			s.Dead++
		case TaskOpen:
		}
	}
	if p.failures != nil {
		for _, ended := range p.failures.ended {
			s.Failed += uint64(ended)
		}
	}
}
