package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
)

// snapshotVersion is the first byte of a snapshot.
const snapshotVersion = 1

// snapshotRecordMax bounds a record of a snapshot, so that a damaged length is refused before memory is asked for.
const (
	snapshotRecordMax  = 1 << 30
	snapshotRecordStep = 1 << 18 // what is asked for before the record is seen
)

// Snapshot is the state at one log position. It shares with the machine the pages of tasks, which the machine copies before it
// changes them, and all that only grows or never changes: taking a snapshot costs microseconds for each live job, and writing
// it out happens beside Apply, in any goroutine.
type Snapshot struct {
	machine *Machine
}

// Snapshot returns the state as it stands.
func (m *Machine) Snapshot() *Snapshot {
	c := &Machine{
		index: m.index, time: m.time, lastJob: m.lastJob, lastWorker: m.lastWorker,
		jobs: maps.Clone(m.jobs), workers: maps.Clone(m.workers), requests: requests{order: m.requests.order}, history: m.history,
	}
	for _, id := range m.live { // those that are over stay as they are
		c.jobs[id] = m.jobs[id].clone()
	}
	m.epoch++
	return &Snapshot{machine: c}
}

// Index is the log position of the snapshot.
func (s *Snapshot) Index() uint64 { return s.machine.index }

// WriteTo writes the snapshot: a version byte, then records, each with its length before it. It is deterministic.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	m := s.machine
	out := recordWriter{w: w}
	out.write([]byte{snapshotVersion})
	out.record(func(e *encoder) {
		e.uint(m.index)
		e.int(m.time)
		e.uint(uint64(m.lastJob))
		e.uint(uint64(m.lastWorker))
		e.uint(uint64(len(m.workers)))
		for _, id := range m.Workers() {
			e.uint(uint64(id))
			e.uint(uint64(m.workers[id].Status))
			e.workerInfo(&m.workers[id].WorkerInfo)
		}
		e.uint(uint64(len(m.requests.order)))
		for _, q := range m.requests.order {
			e.string(q.key)
			e.uint(uint64(q.job))
			e.fixed(q.sum)
			e.int(q.time)
		}
		e.uint(uint64(len(m.jobs)))
	})
	out.record(func(e *encoder) { e.history(&m.history) })
	for _, id := range m.Jobs() {
		job := m.jobs[id]
		out.record(func(e *encoder) { e.job(job) })
		for _, stage := range job.Stages {
			for n, page := range stage.all() {
				out.record(func(e *encoder) { e.page(n, page) })
			}
			out.record(func(*encoder) {}) // an empty record ends the pages of a stage
		}
	}
	return out.n, out.err
}

// Restore reads what WriteTo wrote.
func Restore(r io.Reader) (*Machine, error) {
	in := recordReader{r: r}
	var version [1]byte
	if _, err := io.ReadFull(r, version[:]); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if version[0] != snapshotVersion {
		return nil, fmt.Errorf("snapshot: %w", ErrVersion)
	}
	m := New()
	d, err := in.record()
	if err != nil {
		return nil, err
	}
	m.index, m.time, m.lastJob, m.lastWorker = d.uint(), d.int(), JobID(d.uint()), WorkerID(d.uint())
	for range d.count() {
		w := &Worker{ID: WorkerID(d.uint()), Status: WorkerStatus(d.uint8()), WorkerInfo: d.workerInfo()}
		if w.Status >= WorkerRemoved {
			d.fail()
		}
		m.workers[w.ID], m.byIdentity[w.Identity] = w, w.ID
	}
	for range d.count() {
		m.requests.add(&request{key: d.string(), job: JobID(d.uint()), sum: d.fixed(), time: d.int()})
	}
	jobs := d.uint()
	if err := d.done("snapshot header"); err != nil {
		return nil, err
	}
	if d, err = in.record(); err != nil {
		return nil, err
	}
	m.history = d.history()
	if err := d.done("snapshot: history"); err != nil {
		return nil, err
	}
	for range jobs {
		job, err := in.job()
		if err != nil {
			return nil, err
		}
		m.jobs[job.ID] = job
	}
	if uint64(len(m.jobs)) != jobs {
		return nil, fmt.Errorf("snapshot: a job stands in it twice: %w", errShort)
	}
	for _, id := range m.Jobs() {
		if !m.jobs[id].Status.Ended() {
			m.live = append(m.live, id)
		}
	}
	return m, nil
}

func (e *encoder) job(j *Job) {
	e.uint(uint64(j.ID))
	e.string(j.UID)
	e.spec(j.Spec)
	e.uint(uint64(j.Status))
	e.uint(uint64(j.Current))
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
		e.uint(uint64(s.Kind))
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
			for _, f := range s.failed[i] {
				e.failure(f)
			}
		}
	}
}

func (d *decoder) job() *Job {
	j := &Job{ID: JobID(d.uint()), UID: d.string(), Spec: d.spec(), Status: JobStatus(d.uint8()), Current: int(d.uint32())}
	j.Created, j.Started, j.Ended, j.Error = d.int(), d.int(), d.int(), d.string()
	j.ReadBytes, j.OutputBytes, j.Records = d.uint(), d.uint(), d.uint()
	j.Fence = Lease(d.uint())
	if d.err != nil {
		return j
	}
	j.Stages = newStages(j.Spec)
	if d.uint() != uint64(len(j.Stages)) || j.Status > JobStopped || j.Current >= len(j.Stages) {
		d.fail()
		return j
	}
	for _, s := range j.Stages {
		kind, action, tasks := StageKind(d.uint8()), CommitAction(d.uint8()), d.uint()
		if kind != s.Kind || action > Abort || tasks != s.Tasks {
			d.fail()
			return j
		}
		s.Action = action
		s.Done, s.Dead, s.Failed, s.Closed = d.uint(), d.uint(), d.uint(), d.bool()
		s.failed = d.failures()
	}
	return j
}

func (d *decoder) failures() map[uint64][]Failure {
	n := d.count()
	if n == 0 {
		return nil
	}
	m := make(map[uint64][]Failure, n)
	for range n {
		i := d.uint()
		var list []Failure
		for range d.count() {
			list = append(list, d.failure())
		}
		m[i] = list
	}
	return m
}

// page writes the columns of page p.
func (e *encoder) page(number uint64, p *page) {
	e.uint(number)
	for _, s := range p.status {
		e.buf = append(e.buf, byte(s))
	}
	var last int64
	for _, w := range p.winner {
		e.int(int64(w) - last)
		last = int64(w)
	}
	e.bool(p.out != nil)
	if p.out != nil {
		for i := range pageTasks {
			e.uint(p.out.size[i])
			e.uint(p.out.records[i])
			if p.out.size[i] > 0 {
				e.fixed(p.out.checksum[i])
			}
		}
	}
	e.bool(p.trouble != nil)
	if p.trouble != nil {
		for i, ended := range p.trouble.ended {
			e.uint(uint64(ended))
			if ended > 0 {
				e.buf = append(e.buf, p.trouble.counts[i][:]...)
			}
		}
	}
}

// page reads the columns of p.
func (d *decoder) page(p *page) {
	for i := range p.status {
		if p.status[i] = TaskStatus(d.uint8()); p.status[i] > TaskDead {
			d.fail()
		}
	}
	var last int64
	for i := range p.winner {
		last += d.int()
		p.winner[i] = Lease(last)
	}
	if d.bool() {
		p.out = &outputs{}
		for i := range pageTasks {
			p.out.size[i], p.out.records[i] = d.uint(), d.uint()
			if p.out.size[i] > 0 {
				p.out.checksum[i] = d.fixed()
			}
		}
	}
	if d.bool() {
		p.trouble = &troubles{}
		for i := range p.trouble.ended {
			if p.trouble.ended[i] = d.uint32(); p.trouble.ended[i] > 0 {
				d.copy(p.trouble.counts[i][:])
			}
		}
	}
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

type recordReader struct{ r io.Reader }

func (r recordReader) record() (*decoder, error) {
	var size [4]byte
	if _, err := io.ReadFull(r.r, size[:]); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > snapshotRecordMax {
		return nil, fmt.Errorf("snapshot: record of %d bytes: %w", n, errShort)
	}
	// A large one grows as it arrives: a damaged length must not cost a gigabyte.
	var buf bytes.Buffer
	buf.Grow(int(min(n, snapshotRecordStep)) + bytes.MinRead)
	if _, err := io.CopyN(&buf, r.r, int64(n)); err != nil {
		return nil, fmt.Errorf("snapshot: record of %d bytes: %w", n, err)
	}
	return &decoder{buf: buf.Bytes()}, nil
}

func (r recordReader) job() (*Job, error) {
	d, err := r.record()
	if err != nil {
		return nil, err
	}
	j := d.job()
	if err := d.done("snapshot: job"); err != nil {
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
			first := d.uint() * pageTasks
			if first >= stage.Tasks {
				d.fail()
			} else {
				p := stage.writable(first, 0)
				d.page(p)
				have.sum(p)
			}
			if err := d.done("snapshot: page"); err != nil {
				return nil, err
			}
		}
		if have.Done != stage.Done || have.Dead != stage.Dead || have.Failed != stage.Failed {
			return nil, fmt.Errorf("snapshot: job %d, stage %v: the counts of its tasks are %d done, %d dead, %d failures, not %d, %d, %d: %w",
				j.ID, stage.Kind, have.Done, have.Dead, have.Failed, stage.Done, stage.Dead, stage.Failed, errShort)
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
	if p.trouble != nil {
		for _, ended := range p.trouble.ended {
			s.Failed += uint64(ended)
		}
	}
}
