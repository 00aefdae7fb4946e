package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
)

// The first byte of a snapshot. The records of version 1 have no tags (see codec).
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
	locks   []lockRecord
}

// Snapshot returns the current state.
func (m *Machine) Snapshot() *Snapshot {
	c := &Machine{
		index: m.index, time: m.time, lastJob: m.lastJob, lastWorker: m.lastWorker, expects: m.expects,
		jobs: maps.Clone(m.jobs), workers: maps.Clone(m.workers), requests: requests{order: m.requests.order}, history: m.history,
		tails:  slices.Clip(m.tails),
		access: m.access,
		staged: slices.Clone(m.staged),
		level:  m.level, needs: m.needs,
		locks: lockTable{lastID: m.locks.lastID, fence: m.locks.fence},
	}
	for _, id := range m.live { // ended jobs do not change
		c.jobs[id] = m.jobs[id].clone()
	}
	m.epoch++
	return &Snapshot{machine: c, locks: m.locks.records()}
}

// Index is the log position of the snapshot.
func (s *Snapshot) Index() uint64 { return s.machine.index }

// WriteTo writes the snapshot: a version byte, then records, each preceded by its length. Equal states give equal bytes.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	m := s.machine
	out := recordWriter{w: w, level: m.level}
	if m.level == 0 {
		out.write([]byte{snapshotV1})
	} else {
		out.write([]byte{snapshotV2})
		out.record(func(c *codec) { c.format(m) })
	}
	jobs, staged := uint64(len(m.jobs)), uint64(len(m.staged))
	out.record(func(c *codec) { c.header(m, &jobs, &staged) })
	out.record(func(c *codec) { c.history(&m.history, &m.tails) })
	if m.level >= 2 {
		out.record(func(c *codec) { c.accessTables(m.access) })
	}
	for i := range m.staged {
		s := &m.staged[i]
		blocks := uint64(len(s.blocks))
		out.record(func(c *codec) { c.staging(s, &blocks) })
		out.blocks(s.blocks)
	}
	for _, id := range m.Jobs() {
		job := m.jobs[id]
		if m.level < 2 {
			out.record(func(c *codec) { c.job(job, nil) })
		} else {
			bare, blocks := job.withoutBlocks(), uint64(len(job.Spec.Input.Blocks))
			out.record(func(c *codec) { c.job(bare, &blocks) })
			out.blocks(job.Spec.Input.Blocks)
		}
		for _, stage := range job.Stages {
			for n, page := range stage.all() {
				out.record(func(c *codec) { c.page(stage, n, page) })
			}
			out.record(func(*codec) {}) // an empty record ends the pages of a stage
		}
	}
	if m.level >= 2 {
		out.record(func(c *codec) { c.lockTable(m, &s.locks) })
	}
	return out.n, out.err
}

// Restore reads what WriteTo wrote. The error is an ErrVersion if a newer program can read it.
func Restore(r io.Reader) (*Machine, error) {
	in := recordReader{r: r, level: FeatureLevel}
	var version [1]byte
	if _, err := io.ReadFull(r, version[:]); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	m := New()
	switch version[0] {
	case snapshotV1:
		in.level = 0
	case snapshotV2:
		if err := in.read("format", func(c *codec) { c.format(m) }); err != nil { // tells whether this program can read the rest
			return nil, err
		}
		in.needs, in.level = m.needs, m.level
	default:
		d := decoder{}
		d.newer(fmt.Sprintf("version %d", version[0]))
		return nil, d.finish("snapshot")
	}
	var jobs, staged uint64
	if err := in.read("header", func(c *codec) { c.header(m, &jobs, &staged) }); err != nil {
		return nil, err
	}
	if err := in.read("history", func(c *codec) { c.history(&m.history, &m.tails) }); err != nil {
		return nil, err
	}
	if in.level >= 2 {
		if err := in.read("access", func(c *codec) { c.accessTables(m.access) }); err != nil {
			return nil, err
		}
	}
	for range staged {
		if err := in.readStaging(m); err != nil {
			return nil, err
		}
	}
	for range jobs {
		job, err := in.readJob()
		if err != nil {
			return nil, err
		}
		m.jobs[job.ID] = job
		m.inputs += job.Spec.Input.BlockBytes()
		m.outputs.add(job)
	}
	if uint64(len(m.jobs)) != jobs {
		return nil, fmt.Errorf("snapshot: a job occurs twice: %w", errShort)
	}
	for _, id := range m.Jobs() {
		job := m.jobs[id]
		if job.Pinned {
			m.pinned[job.Spec.User]++
		}
		if !job.Status.Ended() {
			m.live = append(m.live, id)
			m.openBy[job.Spec.User]++
		} else {
			m.retain(job, 1)
		}
		m.awaitOthers(job)
	}
	if in.level >= 2 {
		if err := in.readLocks(m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (c *codec) format(m *Machine) {
	number(c, 1, &m.level)
	c.string(2, &m.needs)
	if c.d != nil {
		c.d.needs = m.needs
	}
	c.end("the snapshot's format")
	if c.d != nil && m.level > FeatureLevel {
		c.d.newer(fmt.Sprintf("feature level %d", m.level))
	}
	c.check(func() bool { return m.level > 0 })
}

// header is counters, workers and requests, and the numbers of jobs and of stagings.
func (c *codec) header(m *Machine, jobs, staged *uint64) {
	number(c, 1, &m.index)
	c.int(2, &m.time)
	number(c, 3, &m.lastJob)
	number(c, 4, &m.lastWorker)
	var workers []*Worker
	for _, id := range m.Workers() {
		workers = append(workers, m.workers[id])
	}
	records(c, 5, &workers, (*codec).worker)
	requests := m.requests.order
	records(c, 6, &requests, (*codec).request)
	number(c, 7, jobs)
	if c.level >= 2 {
		number(c, 8, staged)
		c.bool(20, &m.expects)
	}
	c.end("the snapshot's header")
	if c.d == nil {
		return
	}
	for _, w := range workers {
		m.workers[w.ID] = w
		if w.Identity != "" {
			m.byIdentity[w.Identity] = w.ID
		}
	}
	for _, q := range requests {
		m.requests.add(q)
	}
}

func (c *codec) worker(p **Worker) {
	w := made(p)
	number(c, 1, &w.ID)
	number(c, 2, &w.Status)
	nest(c, 3, &w.WorkerInfo, (*codec).workerInfo)
	if c.level >= 2 {
		number(c, 4, &w.Missed)
	}
	c.end("a worker")
	c.check(func() bool { return w.Status < WorkerRemoved })
}

func (c *codec) request(p **request) {
	q := made(p)
	c.string(1, &q.key)
	number(c, 2, &q.job)
	c.fixed(3, &q.sum)
	c.int(4, &q.time)
	c.end("a request")
}

// staging is all of a staging but its blocks.
func (c *codec) staging(s *staging, blocks *uint64) {
	c.string(1, &s.uid)
	c.int(2, &s.time)
	number(c, 3, blocks)
	c.end("a staged input")
}

// withoutBlocks returns a copy without the blocks of the input: from feature level 2 on, they follow the job's record.
func (j *Job) withoutBlocks() *Job {
	bare, spec := *j, *j.Spec
	spec.Input.Blocks, bare.Spec = nil, &spec
	return &bare
}

// job is all of a job but its pages and, from feature level 2 on, the blocks of its input.
func (c *codec) job(j *Job, blocks *uint64) {
	number(c, 1, &j.ID)
	c.string(2, &j.UID)
	nest(c, 3, made(&j.Spec), (*codec).spec)
	number(c, 4, &j.Status)
	if c.level == 0 {
		c.currentV1(j)
	}
	c.int(5, &j.Created)
	c.int(6, &j.Started)
	c.int(7, &j.Ended)
	c.string(8, &j.Error)
	number(c, 9, &j.ReadBytes)
	number(c, 10, &j.OutputBytes)
	number(c, 11, &j.Records)
	number(c, 12, &j.Fence)
	records(c, 13, &j.Stages, (*codec).stage)
	if c.level >= 2 {
		number(c, 14, blocks)
		records(c, 15, &j.Warnings, (*codec).warning)
		c.bool(16, &j.Pinned)
		number(c, 20, &j.Blocker)
		c.check(func() bool { return len(j.Spec.Input.Blocks) == 0 })
	}
	c.end("a job")
	c.check(func() bool { return j.Status <= JobWaiting && c.plan(j) })
	c.check(func() bool {
		return !slices.ContainsFunc(j.Warnings, func(w Warning) bool { return int(w.Stage) >= len(j.Stages) })
	})
}

// plan gives each stage of a job that was read its part of the plan. It returns false if they do not fit.
func (c *codec) plan(j *Job) bool {
	if len(j.Stages) == 0 || len(j.Stages) != len(j.Spec.Stages) {
		return false
	}
	for i, s := range j.Stages {
		plan := j.Spec.Stages[i]
		if c.level == 0 && (s.Role != plan.Role || s.Tasks != plan.Tasks) {
			return false
		}
		s.StageSpec, s.growing = plan, i == 0 && j.Spec.Input.Growing
		if s.Action > Abort || (s.Action != 0) != (s.Role == RoleCommit) {
			return false
		}
	}
	return true
}

// stage is all of a stage but its part of the plan and its pages.
func (c *codec) stage(p **Stage) {
	s := made(p)
	if c.level == 0 {
		numberValue(c, &s.Role)
	}
	number(c, 1, &s.Action)
	if c.level == 0 {
		numberValue(c, &s.Tasks)
	}
	number(c, 2, &s.Done)
	number(c, 3, &s.Dead)
	number(c, 4, &s.Failed)
	c.bool(5, &s.Closed)
	if c.level > 0 {
		number(c, 6, &s.Fence)
	}
	if c.level >= 2 {
		number(c, 8, &s.Second)
	}
	var failed []taskFailures
	for _, i := range slices.Sorted(maps.Keys(s.failed)) {
		failed = append(failed, taskFailures{task: i, list: s.failed[i]})
	}
	records(c, 7, &failed, func(c *codec, f *taskFailures) {
		number(c, 1, &f.task)
		records(c, 2, &f.list, (*codec).failure)
		c.end("a task's failures")
	})
	c.end("a stage")
	if c.d != nil && len(failed) > 0 {
		s.failed = make(map[uint64][]Failure, len(failed))
		for _, f := range failed {
			s.failed[f.task] = f.list
		}
	}
}

// taskFailures is an element of Stage.failed.
type taskFailures struct {
	task uint64
	list []Failure
}

// page is page n of s. Reading it adds it to s. Its columns are packed.
func (c *codec) page(s *Stage, n uint64, p *page) *page {
	number(c, 1, &n)
	if c.d != nil {
		if n >= MaxTasks/pageTasks || n*pageTasks >= s.Tasks {
			c.d.fail()
			return nil
		}
		p = s.writable(n*pageTasks, 0)
	}
	nest(c, 2, &p.status, (*codec).statuses)
	nest(c, 3, &p.winner, (*codec).winners)
	optional(c, 4, &p.out, (*codec).outputs)
	optional(c, 5, &p.failures, (*codec).failureColumns)
	if c.level > 0 {
		optional(c, 6, &p.run, (*codec).runs)
	}
	if c.level >= 2 {
		optional(c, 7, &p.peaks, (*codec).peakColumn)
		optional(c, 8, &p.reads, (*codec).readColumn)
		optional(c, 9, &p.second, (*codec).markColumn)
	}
	c.end("a page of tasks")
	return p
}

// The columns are nearly all of a large snapshot: the loops that write them call no function.

func (c *codec) statuses(list *[pageTasks]TaskStatus) {
	if c.d == nil {
		for _, s := range list {
			c.e.uint(uint64(s))
		}
		return
	}
	for i := range list {
		numberValue(c, &list[i])
	}
	c.check(func() bool { return slices.Max(list[:]) <= TaskDead })
}

func (c *codec) winners(list *[pageTasks]Lease) {
	var last int64
	if c.d == nil {
		for _, w := range list {
			c.e.int(int64(w) - last)
			last = int64(w)
		}
		return
	}
	for i := range list {
		last += c.d.int()
		list[i] = Lease(last)
	}
}

func (c *codec) outputs(out *outputs) {
	for i := range pageTasks {
		if c.d == nil {
			c.e.uint(out.size[i])
			c.e.uint(out.records[i])
		} else {
			out.size[i], out.records[i] = c.d.uint(), c.d.uint()
		}
		if out.size[i] > 0 {
			c.fixedValue(&out.checksum[i])
		}
	}
}

func (c *codec) failureColumns(t *failureColumns) {
	for i := range t.ended {
		if numberValue(c, &t.ended[i]); t.ended[i] > 0 {
			if c.d == nil {
				c.e.buf = append(c.e.buf, t.counts[i][:]...)
			} else {
				c.d.copyTo(t.counts[i][:])
			}
		}
	}
}

func (c *codec) readColumn(list *reads) {
	for i := range list {
		numberValue(c, &list[i])
	}
}

func (c *codec) runs(r *runs) {
	if c.d == nil {
		for i := range pageTasks {
			c.e.uint(uint64(r.worker[i]))
			c.e.uint(uint64(r.started[i]))
			c.e.uint(uint64(r.millis[i]))
		}
		return
	}
	for i := range pageTasks {
		numberValue(c, &r.worker[i])
		numberValue(c, &r.started[i])
		numberValue(c, &r.millis[i])
	}
}

func (c *codec) markColumn(m *marks) {
	for i := range m {
		numberValue(c, &m[i])
	}
}

func (c *codec) peakColumn(p *peaks) {
	if c.d == nil {
		for _, v := range p {
			c.e.uint(uint64(v.kib()))
		}
		return
	}
	for i := range p {
		var kib uint32
		numberValue(c, &kib)
		p[i] = newPeak(kib)
	}
}

// recordWriter writes records; the first error sticks.
type recordWriter struct {
	w     io.Writer
	level uint32
	enc   encoder
	n     int64
	err   error
}

func (w *recordWriter) write(b []byte) {
	if w.err == nil {
		var n int
		n, w.err = w.w.Write(b)
		w.n += int64(n)
	}
}

func (w *recordWriter) record(write func(*codec)) {
	w.enc.buf = w.enc.buf[:0]
	write(&codec{e: &w.enc, level: w.level})
	if len(w.enc.buf) > snapshotRecordMax && w.err == nil {
		w.err = fmt.Errorf("snapshot: a record of %d bytes; %d is the most that could be read back", len(w.enc.buf), snapshotRecordMax)
	}
	w.write(binary.LittleEndian.AppendUint32(nil, uint32(len(w.enc.buf))))
	w.write(w.enc.buf)
}

// blocks writes a record for each block, so that a large input needs no large buffer.
func (w *recordWriter) blocks(list []Block) {
	for i := range list {
		w.record(func(c *codec) { c.block(&list[i]) })
	}
}

// recordReader reads the records of a snapshot.
type recordReader struct {
	r     io.Reader
	level uint32
	needs string
}

func (r *recordReader) record() (*codec, error) {
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
	return &codec{d: &decoder{buf: buf.Bytes(), needs: r.needs}, level: r.level}, nil
}

// read reads the next record; what names it in errors.
func (r *recordReader) read(what string, read func(*codec)) error {
	c, err := r.record()
	if err != nil {
		return err
	}
	read(c)
	return c.d.finish("snapshot: %s", what)
}

func (r *recordReader) readBlocks(n uint64, list *[]Block) error {
	for range n {
		var b Block
		if err := r.read("input block", func(c *codec) { c.block(&b) }); err != nil {
			return err
		}
		*list = append(*list, b)
	}
	return nil
}

func (r *recordReader) readStaging(m *Machine) error {
	var s staging
	var blocks uint64
	if err := r.read("staged input", func(c *codec) { c.staging(&s, &blocks) }); err != nil {
		return err
	}
	if m.stagedIndex(s.uid) >= 0 {
		return fmt.Errorf("snapshot: input of %q is staged twice: %w", s.uid, errShort)
	}
	if err := r.readBlocks(blocks, &s.blocks); err != nil {
		return err
	}
	s.bytes = blockBytesOf(s.blocks)
	m.staged = append(m.staged, s)
	return nil
}

func (r *recordReader) readJob() (*Job, error) {
	j, blocks := &Job{}, uint64(0)
	if err := r.read("job", func(c *codec) { c.job(j, &blocks) }); err != nil {
		return nil, err
	}
	if err := r.readBlocks(blocks, &j.Spec.Input.Blocks); err != nil {
		return nil, err
	}
	for _, stage := range j.Stages {
		var have Stage
		for {
			c, err := r.record()
			if err != nil {
				return nil, err
			}
			if len(c.d.buf) == 0 {
				break
			}
			p := c.page(stage, 0, nil)
			if err := c.d.finish("snapshot: page"); err != nil {
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
