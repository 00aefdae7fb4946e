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
	cmdStage
	cmdUnstage
	cmdPutToken
	cmdRevokeToken
	cmdEnroll
	cmdRevokeMachine
	cmdPutAuthority
	cmdDropAuthority
	cmdSetQuota
	cmdRemoveQuota
	cmdAudit
	cmdReseal
	cmdSetRetention
	cmdPin
	cmdGrow
	cmdSetInput
	cmdLock
	cmdExpire
	cmdRaiseFence
	cmdQuarantine

	cmdLast = cmdQuarantine
)

// command is one command. Each kind uses some of the fields.
type command struct {
	key         string // of the client's request
	uid         string
	spec        *Spec
	sum         uint64 // of a submit: Spec.RequestSum, as the proposer made it
	job         JobID
	fence       Lease
	worker      WorkerID
	status      WorkerStatus
	info        *WorkerInfo
	stage       uint32
	task        uint64 // of a deferred input: the partitions that fit it
	failure     *Failure
	completions []Completion
	level       uint32
	needs       string // a version of the program that reads level
	lease       Lease
	blocks      []Block
	staged      uint64 // blocks that were staged before
	more        []Submission
	input       *Input
	changed     []FileChange
	lost        []OutputRange
	tail        *Tail // of a failure
	warnings    []Warning
	token       *Token
	enrolment   *Enrolment
	authority   *Authority
	id          string // of a token, a key's fingerprint, or a user
	quota       *Quota
	by          *Audit // who asked for it; nil: the leader itself
	secrets     []Secret
	retention   *Retention
	pinned      bool
	growth      *Growth
	locks       []LockOp
	expired     []LockID
	waiting     bool // only those that wait have expired
	floor       uint64
	others      bool   // attempts of the job may run, beside those that are reported
	why         string // of a quarantine, for users; empty: it has ended
}

func (c *codec) command(m *command) {
	c.string(1, &m.key)
	c.string(2, &m.uid)
	optional(c, 3, &m.spec, (*codec).spec)
	c.fixed(4, &m.sum)
	number(c, 5, &m.job)
	number(c, 6, &m.fence)
	number(c, 7, &m.worker)
	number(c, 8, &m.status)
	optional(c, 9, &m.info, (*codec).workerInfo)
	number(c, 10, &m.stage)
	number(c, 11, &m.task)
	optional(c, 12, &m.failure, (*codec).failure)
	if c.has(13, protowire.BytesType, len(m.completions) == 0) {
		c.nested(func() { c.completions(&m.completions) })
	}
	number(c, 14, &m.level)
	c.string(15, &m.needs)
	if c.d != nil && m.needs != "" {
		c.d.needs = m.needs
	}
	number(c, 16, &m.lease)
	var started, millis uint32 // to be written: 0 if all are
	for i := 0; c.d == nil && i < len(m.completions); i++ {
		started |= m.completions[i].Started
		millis |= m.completions[i].Millis
	}
	if c.has(17, protowire.BytesType, started == 0) {
		c.nested(func() { c.started(m.completions) })
	}
	if c.has(18, protowire.BytesType, millis == 0) {
		c.nested(func() { c.millis(m.completions) })
	}
	if c.level >= 2 {
		records(c, 19, &m.blocks, (*codec).block)
		number(c, 20, &m.staged)
		records(c, 21, &m.changed, (*codec).fileChange)
		optional(c, 22, &m.tail, (*codec).tail)
		records(c, 23, &m.warnings, (*codec).warning)
		optional(c, 24, &m.token, (*codec).token)
		optional(c, 25, &m.enrolment, (*codec).enrolment)
		optional(c, 26, &m.authority, (*codec).authority)
		c.string(27, &m.id)
		optional(c, 28, &m.quota, (*codec).quota)
		optional(c, 29, &m.by, (*codec).audit)
		anyPeak := c.d == nil && slices.ContainsFunc(m.completions, func(d Completion) bool { return d.PeakKiB != 0 })
		if c.has(30, protowire.BytesType, !anyPeak) {
			c.nested(func() { c.peaks(m.completions) })
		}
		records(c, 31, &m.secrets, (*codec).secret)
		optional(c, 32, &m.input, (*codec).input)
		records(c, 33, &m.more, (*codec).submission)
		c.lastFields(m)
	}
	c.end("a command")
	c.check(func() bool { return len(m.more) < SubmissionMax && len(m.locks) <= LockOperationMax })
}

// lastFields is the fields of a command from 36 on.
func (c *codec) lastFields(m *command) {
	optional(c, 36, &m.retention, (*codec).retention)
	c.bool(37, &m.pinned)
	optional(c, 38, &m.growth, (*codec).growth)
	records(c, 39, &m.locks, (*codec).lockOp)
	list(c, 40, protowire.VarintType, &m.expired, numberValue)
	c.bool(41, &m.waiting)
	number(c, 42, &m.floor)
	c.bool(43, &m.others)
	records(c, 44, &m.lost, (*codec).outputRange)
	anySecond := c.d == nil && slices.ContainsFunc(m.completions, func(d Completion) bool { return d.Second })
	if c.has(46, protowire.BytesType, !anySecond) {
		c.nested(func() { c.seconds(m.completions) })
	}
	c.string(47, &m.why)
}

// nextCommand reads the next command into m, whose completions are appended to.
func (c *codec) nextCommand(m *command) (kind int) {
	d := c.d
	if c.level == 0 {
		kind = int(d.uint())
		c.commandV1(kind, m)
		return kind
	}
	number, wire, n := protowire.ConsumeTag(d.buf)
	if n < 0 || wire != protowire.BytesType {
		d.fail()
		return 0
	}
	kind, d.buf = int(number), d.buf[n:]
	if kind > cmdLast {
		d.newer(fmt.Sprintf("unknown command %d", kind))
		return kind
	}
	c.nested(func() { c.command(m) })
	if m.incomplete(kind) {
		d.fail()
	}
	return kind
}

// incomplete reports whether a command lacks the record that its kind is about.
func (m *command) incomplete(kind int) bool {
	switch kind {
	case cmdSubmit:
		return m.spec == nil
	case cmdRegister:
		return m.info == nil
	case cmdFailed:
		return m.failure == nil
	case cmdSetInput:
		return m.input == nil && m.failure == nil
	case cmdPutToken:
		return m.token == nil
	case cmdEnroll:
		return m.enrolment == nil
	case cmdSetQuota:
		return m.quota == nil
	case cmdSetRetention:
		return m.retention == nil
	case cmdGrow:
		return m.growth == nil
	case cmdPutAuthority, cmdDropAuthority:
		return m.authority == nil
	case cmdAudit:
		return m.by == nil
	}
	return false
}

// Entry builds a log entry: a batch of commands that are applied in order. Its time is the proposing leader's clock; the
// machine's time never goes back.
type Entry struct {
	enc   encoder
	out   codec // to enc
	level uint32
	// Items counts the commands, and the completions of a Done one by one.
	Items int
	// Fence is the last lease that the leader has granted. It goes into each Stop, Retry and OutputLost: older leases are void for the
	// job, or for the stages that read the output, also at a later leader whose workers still hold them.
	Fence Lease
	// By is the client that asks for the commands that are added next; nil: none does. At feature level 2 each of them, but for those that
	// stage input, becomes a fact, done or refused.
	By *Audit
	// Others goes into each Done and Failed: other attempts of the job may run, of tasks that have two, or that were revoked and have not ended. If the command
	// ends the job, its locks are held until they have. It needs feature level 2.
	Others bool
	// Fenced are the jobs of these commands. The leader grants no lease for them until the entry is applied: the fence would not cover
	// it.
	Fenced []JobID
}

// NewEntry starts an entry at time now, in Unix milliseconds, for a machine at a feature level.
func NewEntry(now int64, level uint32) *Entry {
	e := &Entry{enc: encoder{buf: make([]byte, 0, 512)}, level: level}
	e.out = codec{e: &e.enc, level: level}
	version := byte(entryV2)
	if e.level == 0 {
		version = entryV1
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
	if kind != cmdStage && kind != cmdUnstage && c.by == nil {
		c.by = e.By
	}
	if e.level == 0 {
		e.enc.uint(uint64(kind))
		e.out.commandV1(kind, c)
	} else {
		e.enc.tag(kind, protowire.BytesType)
		e.enc.sized(func() { e.out.command(c) })
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
	if e.level == 0 {
		asked := *spec
		asked.User = claim
		e.add(cmdSubmit, &command{key: key, uid: uid, spec: &asked})
		return
	}
	e.add(cmdSubmit, &command{key: key, uid: uid, spec: spec, sum: spec.RequestSum(claim)})
}

// SubmissionMax bounds the jobs of a submission.
const SubmissionMax = 1000

// Submission is one job of a submission.
type Submission struct {
	UID    string
	Spec   *Spec
	Staged uint64 // so many input blocks were staged under UID, and are taken in place of those of Spec
}

// SubmitAll adds jobs, all of them or none; their numbers follow each other. Sum identifies the request: the RequestSum of a single spec, or
// RequestSums. It needs feature level 2: below that, it adds nothing.
func (e *Entry) SubmitAll(key string, sum uint64, jobs []Submission) {
	if e.level < 2 {
		return
	}
	list := slices.Clone(jobs)
	for i := range list {
		if list[i].Staged > 0 {
			bare := *list[i].Spec
			bare.Input.Blocks = nil
			list[i].Spec = &bare
		}
	}
	e.add(cmdSubmit, &command{key: key, uid: list[0].UID, spec: list[0].Spec, sum: sum, staged: list[0].Staged, more: list[1:]})
}

// SubmitStaged is SubmitAll of one job whose input was staged.
func (e *Entry) SubmitStaged(key, uid string, sum uint64, spec *Spec) {
	e.SubmitAll(key, sum, []Submission{{UID: uid, Spec: spec, Staged: uint64(len(spec.Input.Blocks))}})
}

// SetInput gives a waiting job the input that was deferred, and the number of partitions that fits it, and starts it. So many of the input's
// blocks were staged under the job's uid, and are taken in place of its own. It needs feature level 2, as a deferred input does.
func (e *Entry) SetInput(key string, job *Job, in Input, staged, partitions uint64) {
	if staged > 0 {
		in.Blocks = nil
	}
	e.add(cmdSetInput, &command{key: key, job: job.ID, uid: job.UID, input: &in, staged: staged, task: partitions})
}

// FailInput ends a waiting job whose deferred input cannot be planned.
func (e *Entry) FailInput(key string, job *Job, message string) {
	f := Failure{Kind: BadInput, Message: message[:min(len(message), messageMax)]}
	e.add(cmdSetInput, &command{key: key, job: job.ID, uid: job.UID, failure: &f})
}

// Stage adds input blocks for a submit with this uid to follow. Staged is how many were staged before. It needs feature level 2: below
// that, it adds nothing.
func (e *Entry) Stage(key, uid string, staged int, blocks []Block) {
	if e.level >= 2 {
		e.add(cmdStage, &command{key: key, uid: uid, staged: uint64(staged), blocks: blocks})
	}
}

// Unstage drops the blocks that are staged under uid, if there are any. No submit with this uid follows.
func (e *Entry) Unstage(key, uid string) {
	if e.level >= 2 {
		e.add(cmdUnstage, &command{key: key, uid: uid})
	}
}

// Mark is the end of an entry, to be passed to Truncate.
type Mark struct{ size, items, fenced int }

// Size is the size of the entry up to the mark.
func (m Mark) Size() int { return m.size }

// Mark returns the present end.
func (e *Entry) Mark() Mark { return Mark{len(e.enc.buf), e.Items, len(e.Fenced)} }

// Truncate removes the commands that were added after the mark.
func (e *Entry) Truncate(m Mark) {
	e.enc.buf, e.Items, e.Fenced = e.enc.buf[:m.size], m.items, e.Fenced[:m.fenced]
}

// Check returns an error if a command that was added after the mark could not be read again: no leader could apply the entry.
func (e *Entry) Check(m Mark) error {
	d := &decoder{buf: e.enc.buf[m.size:]}
	in := codec{d: d, level: e.level}
	for d.err == nil && len(d.buf) > 0 {
		in.nextCommand(&command{})
	}
	return d.finish("a command")
}

// Stop ends a job early.
func (e *Entry) Stop(key string, job JobID) {
	e.Fenced = append(e.Fenced, job)
	e.add(cmdStop, &command{key: key, job: job, fence: e.Fence})
}

// Retry reopens the failed tasks of an ended job. The files that have changed, by task, are read again in their new form, in an active job
// too. That needs feature level 2, below which there are no versions that could have changed.
func (e *Entry) Retry(key string, job JobID, changed ...FileChange) {
	e.RetryLost(key, job, nil, changed...)
}

// OutputRange is tasks of a stage, from First on.
type OutputRange struct {
	Stage        uint32
	First, Tasks uint64
}

// RetryLost is Retry of a job in the spool of which outputs were lost: their tasks are opened again, in an active job and in one that is done too. Lost
// needs feature level 2: below that, it is dropped.
func (e *Entry) RetryLost(key string, job JobID, lost []OutputRange, changed ...FileChange) {
	e.Fenced = append(e.Fenced, job)
	e.add(cmdRetry, &command{key: key, job: job, fence: e.Fence, changed: changed, lost: lost})
}

// Grow adds files to the growing input of a job. Blocks is how many blocks that has; those of more begin with task 0. It needs feature level 2: below
// that, it adds nothing.
func (e *Entry) Grow(key string, job JobID, blocks int, more *Input, last bool) {
	if e.level >= 2 {
		e.add(cmdGrow, &command{
			key: key, job: job, staged: uint64(blocks), blocks: more.Blocks, growth: &Growth{Tasks: more.Tasks, Bytes: more.Bytes, Last: last},
		})
	}
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
	PeakKiB    uint32
	Second     bool // it was a second attempt, which has overtaken the first one
}

// Done adds the completions of one worker in one stage. Neighbouring tasks of neighbouring leases take five bytes each, and one or two
// more for when they ran, unless that is zero for all. Warnings of those that win are the job's. They need feature level 2: below that, they
// are dropped.
func (e *Entry) Done(worker WorkerID, job JobID, stage uint32, list []Completion, warnings ...Warning) {
	e.add(cmdDone, &command{worker: worker, job: job, stage: stage, completions: list, warnings: warnings, others: e.Others})
}

// Failed adds one failed attempt; the machine sets its Attempt and Time. An unknown kind counts as a program error, and a long
// message is cut: a faulty worker must neither stop the leaders nor fill their log.
//
// WaitMS and Cancel need feature level 2: below that, they are dropped. The tail is what the attempt wrote last, or nil. One that is too long is dropped, and below feature level 2 any is.
func (e *Entry) Failed(job JobID, stage uint32, index uint64, f Failure, tail *Tail) {
	if tail != nil && max(len(tail.Log), len(tail.Output)) > TailTextMax {
		tail = nil
	}
	if f.Kind == 0 || f.Kind >= failureKinds {
		f.Kind = ProgramError
	}
	f.Message = f.Message[:min(len(f.Message), messageMax)]
	if e.level < 2 {
		f.WaitMS, f.Cancel = 0, false
	}
	e.add(cmdFailed, &command{job: job, stage: stage, task: index, failure: &f, tail: tail, others: e.Others})
}

// OutputLost opens a done task again if its winner is lease. Worker could not read the output, for the reason in message. It needs feature level 1: below that,
// it adds nothing; and the reason needs level 2.
func (e *Entry) OutputLost(job JobID, stage uint32, task uint64, lease Lease, worker WorkerID, message string) {
	if e.level == 0 {
		return
	}
	e.Fenced = append(e.Fenced, job)
	c := &command{job: job, stage: stage, task: task, lease: lease, fence: e.Fence}
	if e.level >= 2 {
		c.failure = &Failure{Worker: worker, Message: message[:min(len(message), messageMax)]}
	}
	e.add(cmdOutputLost, c)
}

// Register adds a worker, or revives a known one; without an identity, it says where one with that claim is expected, which needs feature level 2: below that, it adds
// nothing.
func (e *Entry) Register(key string, w *WorkerInfo) {
	if w.Identity == "" && e.level < 2 {
		return
	}
	e.add(cmdRegister, &command{key: key, info: w})
}

// SetWorker changes a worker's status.
func (e *Entry) SetWorker(key string, id WorkerID, status WorkerStatus) {
	e.add(cmdWorker, &command{key: key, worker: id, status: status})
}

// The commands below need feature level 2: below that, they add nothing.

// PutToken adds a token; the machine sets when it was created. The id must be new.
func (e *Entry) PutToken(key string, t *Token) {
	e.addAccess(cmdPutToken, &command{key: key, token: t})
}

// RevokeToken removes a token.
func (e *Entry) RevokeToken(key, id string) { e.addAccess(cmdRevokeToken, &command{key: key, id: id}) }

// Enroll adds a machine by its key, or renews it; the machine sets the times. It is refused for a revoked key, and for one of another role.
func (e *Entry) Enroll(key string, machine *Enrolment) {
	e.addAccess(cmdEnroll, &command{key: key, enrolment: machine})
}

// RevokeMachine revokes the key of a machine for good.
func (e *Entry) RevokeMachine(key, fingerprint string) {
	e.addAccess(cmdRevokeMachine, &command{key: key, id: fingerprint})
}

// PutAuthority adds the next certificate authority. Its number must be that after the newest one's, so that of two leaders that make one
// only one succeeds.
func (e *Entry) PutAuthority(key string, a *Authority) {
	e.addAccess(cmdPutAuthority, &command{key: key, authority: a})
}

// DropAuthority removes an authority that is not the newest.
func (e *Entry) DropAuthority(key string, number uint64) {
	e.addAccess(cmdDropAuthority, &command{key: key, authority: &Authority{Number: number}})
}

// Reseal replaces the secrets of a job by the same ones, sealed under another key.
func (e *Entry) Reseal(key string, job JobID, secrets []Secret) {
	e.addAccess(cmdReseal, &command{key: key, job: job, secrets: secrets})
}

// SetQuota adds the quota of a user, or replaces it.
func (e *Entry) SetQuota(key string, q Quota) {
	e.addAccess(cmdSetQuota, &command{key: key, quota: &q})
}

// RemoveQuota removes the quota of a user.
func (e *Entry) RemoveQuota(key, user string) {
	e.addAccess(cmdRemoveQuota, &command{key: key, id: user})
}

// SetRetention sets which ended jobs are kept, of a user or of Everyone; one without bounds is removed.
func (e *Entry) SetRetention(key string, r Retention) {
	e.addAccess(cmdSetRetention, &command{key: key, retention: &r})
}

// Pin keeps a job whatever the retention is, or ends that.
func (e *Entry) Pin(key string, job JobID, pinned bool) {
	e.addAccess(cmdPin, &command{key: key, job: job, pinned: pinned})
}

// Lock carries out operations on locks, one after the other. The answers are in Event.Locks of the command's RequestApplied.
func (e *Entry) Lock(key string, ops ...LockOp) {
	e.addAccess(cmdLock, &command{key: key, locks: ops})
}

// Expire ends requests for locks: of clients that were not renewed in time, and those that are over, whose jobs run no attempts any more.
func (e *Entry) Expire(key string, ids ...LockID) {
	e.addAccess(cmdExpire, &command{key: key, expired: ids})
}

// Withdraw ends a request of a client that has waited long enough, unless it was granted.
func (e *Entry) Withdraw(key string, id LockID) {
	e.addAccess(cmdExpire, &command{key: key, expired: []LockID{id}, waiting: true})
}

// RaiseFence makes all later fencing numbers larger than floor: those of the entries that a recovered cluster has lost must not be used again.
func (e *Entry) RaiseFence(floor uint64) {
	e.addAccess(cmdRaiseFence, &command{floor: floor})
}

// Quarantine records for the history that a worker gets no leases for a while, and why, or that this is over, if why is empty. It needs feature level 2: below that, it adds nothing.
func (e *Entry) Quarantine(worker WorkerID, why string) {
	e.addAccess(cmdQuarantine, &command{worker: worker, why: why})
}

func (e *Entry) addAccess(kind int, c *command) {
	if e.level >= 2 {
		e.add(kind, c)
	}
}
