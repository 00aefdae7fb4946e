package state

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// An entry begins with its version and its time. The commands of version 1 are positional (compat_v1.go), those of version 2
// are fields of the entry, numbered by their kind: length-prefixed, so that an unknown one is recognised.
const (
	entryV1 = 1
	entryV2 = 2
)

// Command kinds, as written in the log. Never renumbered.
const (
	cmdSubmit = iota + 1
	cmdStop
	cmdRetry
	cmdForget
	cmdDone
	cmdFailed
	cmdRegister
	cmdWorker
	cmdRaiseLevel
	cmdOutputLost
)

// command is one command. Each kind uses some of the fields.
type command struct {
	key         string // of the client's request
	uid         string
	spec        *Spec
	sum         uint64 // of a submit: Spec.requestSum, as the proposer made it
	job         JobID
	fence       Lease
	worker      WorkerID
	status      WorkerStatus
	info        *WorkerInfo
	stage       uint32
	task        uint64
	failure     *Failure
	completions []Completion
	level       uint32
	needs       string // a version of the program that reads level
	lease       Lease
}

func (e *encoder) command(c *command) {
	e.stringField(1, c.key)
	e.stringField(2, c.uid)
	if c.spec != nil {
		e.nest(3, func() { e.spec(c.spec) })
	}
	e.fixedField(4, c.sum)
	e.uintField(5, uint64(c.job))
	e.uintField(6, uint64(c.fence))
	e.uintField(7, uint64(c.worker))
	e.uintField(8, uint64(c.status))
	if c.info != nil {
		e.nest(9, func() { e.workerInfo(c.info) })
	}
	e.uintField(10, uint64(c.stage))
	e.uintField(11, c.task)
	if c.failure != nil {
		e.nest(12, func() { e.failure(c.failure) })
	}
	if len(c.completions) > 0 {
		e.nest(13, func() { e.completions(c.completions) })
	}
	e.uintField(14, uint64(c.level))
	e.stringField(15, c.needs)
	e.uintField(16, uint64(c.lease))
	if slices.ContainsFunc(c.completions, func(c Completion) bool { return c.Started != 0 }) {
		e.nest(17, func() { e.startedColumn(c.completions) })
	}
	if slices.ContainsFunc(c.completions, func(c Completion) bool { return c.Millis != 0 }) {
		e.nest(18, func() { e.millisColumn(c.completions) })
	}
}

// command reads the next command into c, whose completions are appended to.
func (d *decoder) command(c *command) (kind int) {
	number, t, n := protowire.ConsumeTag(d.buf)
	if n < 0 || t != protowire.BytesType {
		d.fail()
		return 0
	}
	kind, d.buf = int(number), d.buf[n:]
	if kind > cmdOutputLost {
		d.newer(fmt.Sprintf("unknown command %d", kind))
		return kind
	}
	d.nest(func() { d.commandFields(c) })
	if kind == cmdSubmit && c.spec == nil || kind == cmdRegister && c.info == nil || kind == cmdFailed && c.failure == nil {
		d.fail()
	}
	return kind
}

func (d *decoder) commandFields(c *command) {
	for n := range d.fields() {
		switch n {
		case 1:
			c.key = d.string()
		case 2:
			c.uid = d.string()
		case 3:
			c.spec = nested(d, (*decoder).spec)
		case 4:
			c.sum = d.fixed()
		case 5:
			c.job = JobID(d.uint())
		case 6:
			c.fence = Lease(d.uint())
		case 7:
			c.worker = WorkerID(d.uint())
		case 8:
			c.status = WorkerStatus(d.uint8())
		case 9:
			c.info = new(nested(d, (*decoder).workerInfo))
		case 10:
			c.stage = d.uint32()
		case 11:
			c.task = d.uint()
		case 12:
			c.failure = new(nested(d, (*decoder).failure))
		case 13:
			d.nest(func() { c.completions = d.completions(c.completions) })
		case 14:
			c.level = d.uint32()
		case 15:
			c.needs = d.string()
			d.needs = c.needs
		case 16:
			c.lease = Lease(d.uint())
		case 17:
			d.nest(func() { d.startedColumn(c.completions) })
		case 18:
			d.nest(func() { d.millisColumn(c.completions) })
		default:
			d.unknown(n, "a command")
		}
	}
}

// Entry builds a log entry: a batch of commands that are applied in order. Its time is the proposing leader's clock; the
// machine's time never goes back.
type Entry struct {
	enc   encoder
	level uint32
	// Items counts the commands, and the completions of a Done one by one.
	Items int
	// Fence is the last lease that the leader has granted. It goes into each Stop, Retry and OutputLost: older leases are void for the
	// job, or for the stages that read the output, also at a later leader whose workers still hold them.
	Fence Lease
	// Fenced are the jobs of these commands. The leader grants no lease for them until the entry is applied: the fence would not cover
	// it.
	Fenced []JobID
}

// NewEntry starts an entry at time now, in Unix milliseconds, for a machine at a feature level.
func NewEntry(now int64, level uint32) *Entry {
	e := &Entry{enc: encoder{buf: make([]byte, 0, 512)}, level: level}
	version := byte(entryV1)
	if level > 0 {
		version = entryV2
	}
	e.enc.buf = append(e.enc.buf, version)
	e.enc.int(now)
	return e
}

// RaiseLevel returns the entry that raises the feature level. Every node must be able to read level. The entry itself is written at
// that level, so that an older program refuses it by its version. Needs is a version of the program that reads level.
func RaiseLevel(now int64, level uint32, needs string) *Entry {
	e := NewEntry(now, level)
	e.add(cmdRaiseLevel, &command{level: level, needs: needs})
	return e
}

func (e *Entry) add(kind int, c *command) {
	e.Items += max(1, len(c.completions))
	if e.level == 0 {
		e.enc.commandV1(kind, c)
	} else {
		e.enc.nest(kind, func() { e.enc.command(c) })
	}
}

// Data is the entry's encoding.
func (e *Entry) Data() []byte { return e.enc.buf }

// Size is the length of Data, in bytes.
func (e *Entry) Size() int { return len(e.enc.buf) }

// Submit adds a job. Key makes it idempotent: for a day, another submit with the same key is answered with the first one's job.
// An empty key is no key. UID names the job's private folder and must be new. Claim is the user named by the client. The job belongs to
// spec.User; the claim is part of the request's sum, and at feature level 0 it is the job's user.
func (e *Entry) Submit(key, uid, claim string, spec *Spec) {
	asked := *spec
	asked.User = claim
	if e.level == 0 {
		e.add(cmdSubmit, &command{key: key, uid: uid, spec: &asked})
		return
	}
	e.add(cmdSubmit, &command{key: key, uid: uid, spec: spec, sum: asked.requestSum()})
}

// Stop ends a job early.
func (e *Entry) Stop(key string, job JobID) {
	e.Fenced = append(e.Fenced, job)
	e.add(cmdStop, &command{key: key, job: job, fence: e.Fence})
}

// Retry reopens the failed tasks of an ended job.
func (e *Entry) Retry(key string, job JobID) {
	e.Fenced = append(e.Fenced, job)
	e.add(cmdRetry, &command{key: key, job: job, fence: e.Fence})
}

// Forget removes an ended job from the state.
func (e *Entry) Forget(key string, job JobID) {
	e.add(cmdForget, &command{key: key, job: job, fence: e.Fence})
}

// Completion is one prepared attempt.
type Completion struct {
	Index      uint64
	Lease      Lease
	Size       uint64 // bytes of output
	Records    uint64
	Checksum   uint64 // xxh64; kept only if Size > 0
	InputBytes uint64
	Started    uint32 // see Run
	Millis     uint32
}

// Done adds the completions of one worker in one stage. Neighbouring tasks of neighbouring leases take five bytes each, and one or two
// more for when they ran, unless that is zero for all.
func (e *Entry) Done(worker WorkerID, job JobID, stage uint32, list []Completion) {
	e.add(cmdDone, &command{worker: worker, job: job, stage: stage, completions: list})
}

// Failed adds one failed attempt; the machine sets its Attempt and Time. An unknown kind counts as a program error, and a long
// message is cut: a faulty worker must neither stop the leaders nor fill their log.
func (e *Entry) Failed(job JobID, stage uint32, index uint64, f Failure) {
	if f.Kind == 0 || f.Kind >= failureKinds {
		f.Kind = ProgramError
	}
	f.Message = f.Message[:min(len(f.Message), messageMax)]
	e.add(cmdFailed, &command{job: job, stage: stage, task: index, failure: &f})
}

// OutputLost opens a done task again if its winner is lease. It needs feature level 1: below that, it adds nothing.
func (e *Entry) OutputLost(job JobID, stage uint32, task uint64, lease Lease) {
	if e.level == 0 {
		return
	}
	e.Fenced = append(e.Fenced, job)
	e.add(cmdOutputLost, &command{job: job, stage: stage, task: task, lease: lease, fence: e.Fence})
}

// Register adds a worker, or revives a known one.
func (e *Entry) Register(key string, w *WorkerInfo) {
	e.add(cmdRegister, &command{key: key, info: w})
}

// SetWorker changes a worker's status.
func (e *Entry) SetWorker(key string, id WorkerID, status WorkerStatus) {
	e.add(cmdWorker, &command{key: key, worker: id, status: status})
}
