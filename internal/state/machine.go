package state

import (
	"fmt"
	"maps"
	"slices"
)

// Machine is the replicated state. It belongs to one goroutine, and reads neither clock nor random numbers.
type Machine struct {
	index      uint64 // of the last applied entry
	time       int64  // of the last applied entry, Unix ms; never goes back
	epoch      uint64 // grows with each snapshot
	jobs       map[JobID]*Job
	live       []JobID           // jobs that have not ended, ascending
	openBy     map[string]uint32 // live, by user
	locks      lockTable
	outputs    outputIndex
	after      map[JobID][]JobID // jobs that come after another, by that, ascending
	ended      []JobID           // by the command that is being applied: see releaseOthers
	lastJob    JobID
	workers    map[WorkerID]*Worker
	byIdentity map[string]WorkerID
	lastWorker WorkerID
	expects    bool // see Expects
	requests   requests
	history    history
	staged     []staging        // oldest first
	inputs     uint64           // see InputBytes
	tails      []KeptTail       // oldest first; snapshots share them
	access     *Access          // replaced when it changes
	kept       Kept             // see Kept
	keptOf     map[string]*Kept // by user
	pinned     map[string]int   // jobs, by user
	level      uint32           // see Level
	needs      string           // see Needs
	others     bool             // attempts may run of a job that the command that is being applied ends
	facts      uint32           // recorded for the entry that is being applied
	batch      []Completion     // of the command that is being applied; kept for its memory
	input      *InputReader     // see reading; nil between entries
}

// New returns the empty machine.
func New() *Machine {
	m := &Machine{
		jobs: map[JobID]*Job{}, openBy: map[string]uint32{}, locks: newLockTable(), after: map[JobID][]JobID{}, workers: map[WorkerID]*Worker{}, byIdentity: map[string]WorkerID{},
		requests: requests{byKey: map[string]*request{}}, access: &Access{}, keptOf: map[string]*Kept{}, pinned: map[string]int{},
	}
	m.outputs = newOutputIndex(&m.locks.roots[dataSpace])
	return m
}

// Index is the log position of the last applied entry.
func (m *Machine) Index() uint64 { return m.index }

// Time is the time of the last applied entry, in Unix milliseconds.
func (m *Machine) Time() int64 { return m.time }

// Level is the feature level: what nodes may write. See FeatureLevel.
func (m *Machine) Level() uint32 { return m.level }

// Needs is a version of the program that reads what the level allows; empty at level 0.
func (m *Machine) Needs() string { return m.needs }

// Job returns a job, or nil.
func (m *Machine) Job(id JobID) *Job { return m.jobs[id] }

// Live returns the jobs that have not ended, ascending. The slice belongs to the machine: do not change or keep it.
func (m *Machine) Live() []JobID { return m.live }

// Jobs returns the numbers of all jobs, ascending.
func (m *Machine) Jobs() []JobID { return slices.Sorted(maps.Keys(m.jobs)) }

// Worker returns a worker, or nil.
func (m *Machine) Worker(id WorkerID) *Worker { return m.workers[id] }

// ByIdentity returns the worker that registered with an identity, or nil.
func (m *Machine) ByIdentity(identity string) *Worker { return m.workers[m.byIdentity[identity]] }

// Expects reports whether a worker was ever registered before it came.
func (m *Machine) Expects() bool { return m.expects }

// Workers returns the numbers of all workers, ascending.
func (m *Machine) Workers() []WorkerID { return slices.Sorted(maps.Keys(m.workers)) }

// Apply applies the entry at index and stores the outcome in out. An error means that the entry cannot be read: the commands before the
// unreadable one are applied, and the process must stop. It is an ErrVersion if a newer program can read the entry.
func (m *Machine) Apply(index uint64, data []byte, out *Result) error {
	out.Events, out.Verdicts = out.Events[:0], out.Verdicts[:0]
	d := &decoder{buf: data[min(1, len(data)):], needs: m.needs}
	in := codec{d: d, level: FeatureLevel}
	if len(data) > 0 && data[0] == entryV1 {
		in.level = 0
	}
	if len(data) > 0 && data[0] > entryV2 {
		d.newer(fmt.Sprintf("version %d", data[0]))
	}
	if now := d.int(); d.err == nil {
		m.index, m.time, m.facts = index, max(m.time, now), 0
		m.requests.expire(m.time)
		m.expireStaged()
	}
	for d.err == nil && len(d.buf) > 0 {
		c := command{completions: m.batch[:0]}
		kind := in.nextCommand(&c)
		m.batch = c.completions
		switch {
		case kind == cmdRaiseLevel && c.level > FeatureLevel:
			d.newer(fmt.Sprintf("feature level %d", c.level))
		case kind != cmdRaiseLevel && m.level == 0 && data[0] == entryV2:
			d.fail() // the node that wrote it ignored the level
		}
		if d.err == nil {
			m.apply(kind, &c, out)
		}
	}
	m.input = nil
	m.locks.inherit(func(id JobID) { out.Events = append(out.Events, Event{Kind: PriorityChanged, Job: id}) })
	return d.finish("log entry %d", index)
}

func (m *Machine) apply(kind int, c *command, out *Result) {
	answer := Event{Kind: RequestApplied, Key: c.key, Job: c.job, Worker: c.worker}
	var err *Rejection
	m.others = true
	switch kind {
	case cmdSubmit:
		answer.Job, err = m.submit(c, out)
	case cmdStop, cmdRetry, cmdForget, cmdPin, cmdGrow:
		err = m.jobCommand(kind, c, out)
	case cmdRegister:
		answer.Worker, err = m.register(*c.info, out)
	case cmdWorker:
		err = m.setWorker(c.worker, c.status, out)
	case cmdDone, cmdFailed, cmdOutputLost, cmdRaiseFence, cmdQuarantine:
		m.applyReport(kind, c, out)
		return
	case cmdSetInput:
		err = m.setInput(c, out)
	case cmdStage:
		err = m.stage(c)
	case cmdUnstage:
		m.takeStaged(c.uid)
	case cmdLock:
		answer.Locks, answer.Message = m.lock(c, out)
	case cmdExpire:
		m.expire(c, out)
	case cmdReseal:
		err = m.reseal(c.job, c.secrets)
	case cmdRaiseLevel:
		if c.level > m.level {
			if m.level < 2 && c.level >= 2 {
				defer m.lockLive()
			}
			m.level, m.needs = c.level, c.needs
		}
		return
	default:
		err = m.applyAccess(kind, c, out)
	}
	if err != nil {
		answer.Err = err
	}
	m.audit(c, &answer)
	out.Events = append(out.Events, answer)
}

// applyReport applies a command of the leader's own, which has no answer.
func (m *Machine) applyReport(kind int, c *command, out *Result) {
	switch kind {
	case cmdDone:
		m.done(c, out)
	case cmdFailed:
		m.failed(c, out)
	case cmdOutputLost:
		m.outputLost(c, out)
	case cmdRaiseFence:
		m.raiseFence(c.floor)
	case cmdQuarantine:
		m.quarantined(c.worker, c.why, out)
	}
}

// applyAccess applies a command about who may use the cluster, and how much of it.
func (m *Machine) applyAccess(kind int, c *command, out *Result) (err *Rejection) {
	a := *m.access // readers hold the present tables
	switch kind {
	case cmdPutToken:
		err = a.putToken(m.time, *c.token)
	case cmdRevokeToken:
		err = a.revokeToken(c.id)
	case cmdEnroll:
		err = a.enroll(m.time, *c.enrolment)
	case cmdRevokeMachine:
		err = a.revokeMachine(m.time, c.id)
	case cmdPutAuthority:
		err = a.putAuthority(m.time, *c.authority)
	case cmdDropAuthority:
		err = a.dropAuthority(c.authority.Number)
	case cmdSetQuota:
		err = a.setQuota(*c.quota, out)
	case cmdRemoveQuota:
		err = a.removeQuota(c.id, out)
	case cmdSetRetention:
		err = a.setRetention(*c.retention)
	}
	if err == nil {
		m.access = &a
	}
	return err
}

// reseal replaces the secrets of a job. Readers may hold its spec, which is not changed.
func (m *Machine) reseal(id JobID, secrets []Secret) *Rejection {
	job := m.jobs[id]
	if job == nil {
		return reject(NotFound, "there is no job %d", id)
	}
	if !slices.EqualFunc(job.Spec.Secrets, secrets, func(a, b Secret) bool { return a.Name == b.Name }) {
		return reject(Conflict, "job %d has other secrets", id)
	}
	spec := *job.Spec
	spec.Secrets = secrets
	job.Spec = &spec
	return nil
}

// submit adds the jobs of a submission, all of them or none, and returns the number of the first.
func (m *Machine) submit(c *command, out *Result) (JobID, *Rejection) {
	list := append([]Submission{{UID: c.uid, Spec: c.spec, Staged: c.staged}}, c.more...)
	blocks := make([][]Block, len(list))
	for i := range list {
		blocks[i] = m.takeStaged(list[i].UID)
	}
	if seen, ok := m.requests.byKey[c.key]; ok {
		if seen.sum != c.sum {
			return 0, reject(Conflict, "this idempotency key was used for another request, which is job %d; use a new key", seen.job)
		}
		return seen.job, nil
	}
	written := newOutputIndex(&pathNode{}) // by the jobs of the submission
	jobs := make([]*Job, len(list))
	for i := range list {
		jobs[i] = &Job{ID: m.lastJob + 1 + JobID(i), UID: list[i].UID, Spec: list[i].Spec, Created: m.time}
		err := m.admit(jobs[i], jobs[:i], &written)
		if err == nil && list[i].Staged > 0 && uint64(len(blocks[i])) != list[i].Staged {
			err = reject(Busy, "the input of the job is no longer staged: submit it again")
		}
		if err != nil && len(list) > 1 {
			err.Message = fmt.Sprintf("job %q: %s", jobs[i].Spec.Name, err.Message)
		}
		if err != nil {
			return 0, err
		}
		if list[i].Staged > 0 {
			jobs[i].Spec.Input.Blocks = blocks[i]
		}
		written.add(jobs[i])
	}
	m.requests.add(&request{key: c.key, job: jobs[0].ID, sum: c.sum, time: m.time})
	for _, job := range jobs {
		m.addJob(job, out)
	}
	return jobs[0].ID, nil
}

// admit refuses a job of a submission, of which some were admitted before. It gives it the numbers of those of them that it comes after.
func (m *Machine) admit(job *Job, before []*Job, written *outputIndex) *Rejection {
	if err := m.withinQuota(job.Spec, uint32(len(before))); err != nil {
		return err
	}
	if err := m.outputFree(job.Spec); err != nil {
		return err
	}
	if job.Spec.FailOnConflict && len(job.Spec.After) == 0 {
		if err := m.inTheWay(job); err != nil {
			return err
		}
	}
	if id := written.first(job.Spec.outputName().Name, func(JobID) bool { return !job.Spec.Overwrite }); id != 0 {
		other := before[id-before[0].ID].Spec
		return reject(Conflict, "output %q: job %q, which is submitted together with it, writes to %q; name another output", job.Spec.Output, other.Name, other.Output)
	}
	for i := range job.Spec.After {
		d := &job.Spec.After[i]
		switch {
		case int(d.Peer) > len(before):
			return reject(Conflict, "it comes after job %d of its submission, which is not before it", d.Peer)
		case d.Peer > 0:
			d.Job, d.Peer = before[d.Peer-1].ID, 0
		case m.jobs[d.Job] == nil:
			return reject(NotFound, "there is no job %d for this job to come after: it was forgotten, or there never was one", d.Job)
		}
	}
	return nil
}

// addJob adds a new job.
func (m *Machine) addJob(job *Job, out *Result) {
	m.lastJob = job.ID
	job.Stages = newStages(job.Spec)
	m.jobs[job.ID] = job
	m.outputs.add(job)
	m.awaitOthers(job)
	m.openBy[job.Spec.User]++
	m.inputs += job.Spec.Input.BlockBytes()
	m.live = append(m.live, job.ID)
	if len(job.Spec.After) > 0 {
		job.Status = JobWaiting
	}
	m.record(Event{Kind: JobSubmitted, Job: job.ID}, out)
	job.Status = JobWaiting
	m.proceed(job, out)
	m.releaseOthers(out)
}

// quarantined records that a worker is quarantined, or not any more. Nothing depends on it: the leader of the term decides.
func (m *Machine) quarantined(id WorkerID, why string, out *Result) {
	e := Event{Kind: WorkerQuarantined, Worker: id, Message: why}
	if why == "" {
		e.Kind = WorkerReleased
	}
	if m.workers[id] != nil {
		m.record(e, out)
	}
}

func (m *Machine) jobCommand(kind int, c *command, out *Result) *Rejection {
	defer m.releaseOthers(out)
	job := m.jobs[c.job]
	if job == nil {
		return reject(NotFound, "there is no job %d", c.job)
	}
	switch kind {
	case cmdStop:
		return m.stop(job, c.fence, out)
	case cmdRetry:
		return m.retry(job, c, out)
	case cmdPin:
		return m.pin(job, c.pinned)
	case cmdGrow:
		return m.grow(job, c, out)
	default:
		return m.forget(job, out)
	}
}

func (m *Machine) stop(job *Job, fence Lease, out *Result) *Rejection {
	switch job.Status {
	case JobStopping, JobStopped:
		return nil // already done
	case JobDone:
		return reject(Conflict, "job %d is done; there is nothing to stop", job.ID)
	case JobActive, JobFailing, JobFailed, JobWaiting:
	}
	idle := job.Spec.Deferred != nil || job.Fence == 0 && (job.Status == JobWaiting || job.Blocker != 0) // it has never run: there is nothing to clean up
	// A commit that is not ready waits for an output that was lost: older versions refuse to stop that, too.
	if commit := job.commitStage(); job.Status == JobActive && job.committing(commit) && (m.level < 2 || job.Ready(commit)) {
		return reject(Conflict, "job %d is being committed: it is too late to stop it", job.ID)
	}
	if job.Status.Ended() {
		if err := m.outputLeft(job); err != nil {
			return err
		}
	}
	if !idle {
		if err := m.lockCleanup(job); err != nil && job.Status == JobWaiting { // for a retry, which is taken back
			job.Error = "stopped while it waited: " + err.Message
			m.endJob(job, LocksRefused, out)
			return nil
		} else if err != nil {
			return err
		}
	}
	if job.Status.Ended() {
		job = m.revive(job)
	}
	m.moveJob(job, StopAsked)
	job.Fence, job.Blocker = max(job.Fence, fence), 0
	m.record(Event{Kind: JobEnding, Job: job.ID}, out)
	if idle {
		m.leave(job)
		m.endJob(job, CleanupDone, out)
	} else {
		m.cleanUp(job, out)
	}
	return nil
}

// cleanUp starts the commit stage of a job that ends incomplete, which removes or publishes its outputs.
func (m *Machine) cleanUp(job *Job, out *Result) {
	commit := job.commitStage()
	if commit < 0 {
		m.endJob(job, CleanupDone, out)
		return
	}
	stage := newStage(&job.Spec.Stages[commit])
	stage.Action = Abort
	if job.Spec.KeepPartial {
		stage.Action = CommitPartial
	} else if job.Status == JobFailing {
		m.endJob(job, CleanupDone, out) // outputs stay in _temporary for a retry
		return
	}
	job.Fence = max(job.Fence, job.Stages[commit].Fence) // attempts of the old stage must not count for the new one
	job.Stages[commit] = stage
	m.record(Event{Kind: StageStarted, Job: job.ID, Stage: uint32(commit)}, out)
}

func (m *Machine) retry(job *Job, c *command, out *Result) *Rejection {
	if job.Status == JobActive && len(c.changed)+len(c.lost) > 0 {
		return m.runAgain(job, c, out)
	}
	if job.Status != JobFailed && job.Status != JobStopped && (job.Status != JobDone || !job.anyDone(c.lost)) {
		return reject(Conflict, "job %d is %v; only a failed or stopped job can be run again", job.ID, job.Status)
	}
	if job.Growing() || job.Status == JobStopped && job.Spec.Input.Growing {
		return reject(Conflict, "the input of job %d was not complete when it ended, and the rest is lost: submit it again", job.ID)
	}
	if blocker := m.Blocker(job); blocker != nil {
		return reject(Conflict, "job %d comes after job %d, which %s: retry job %d first", job.ID, blocker.ID, hasEnded(blocker.Status), blocker.ID)
	}
	if err := m.withinQuota(job.Spec, 0); err != nil {
		return err
	}
	if err := m.outputLeft(job); err != nil {
		return err
	}
	if id := m.Overtaken(job); id != 0 {
		return reject(Conflict, "job %d cannot be run again: %s", job.ID, m.overtakenBy(id))
	}
	fresh := job.Status == JobStopped // the stop has removed all outputs
	job = m.revive(job)
	m.moveJob(job, RetryAsked)
	job.Fence = max(job.Fence, c.fence)
	for i, stage := range job.Stages {
		job.Fence, stage.Fence = max(job.Fence, stage.Fence), 0
		switch {
		case fresh || stage.Role == RoleCommit && stage.Action != Commit:
			job.Stages[i] = newStage(&job.Spec.Stages[i])
		default:
			stage.Closed = stage.Closed && stage.Role != RoleCheck
			stage.reopen(m.epoch)
		}
	}
	if fresh {
		job.ReadBytes, job.OutputBytes, job.Records, job.Warnings = 0, 0, 0, nil
	}
	m.changeInput(job, c.changed)
	m.redoLost(job, c.lost)
	job.Error, job.Blocker = "", 0
	m.proceed(job, out) // at least one stage is ready then: a dead or lost task is open again, or the commit stage is new
	m.reviveOthers(job.ID, out)
	return nil
}

// revive makes an ended job live again. The Job is a new one: snapshots share the ended one.
func (m *Machine) revive(ended *Job) *Job {
	m.retain(ended, -1)
	job := ended.clone()
	job.Ended = 0
	m.jobs[job.ID] = job
	m.openBy[job.Spec.User]++
	at, _ := slices.BinarySearch(m.live, job.ID)
	m.live = slices.Insert(m.live, at, job.ID)
	return job
}

func (m *Machine) forget(job *Job, out *Result) *Rejection {
	if !job.Status.Ended() {
		return reject(Conflict, "job %d has not ended; stop it first", job.ID)
	}
	if job.Pinned {
		return reject(Conflict, "job %d is pinned: 'bridgefour job keep %d --undo' ends that", job.ID, job.ID)
	}
	m.retain(job, -1)
	e := Event{Kind: JobForgotten, Job: job.ID}
	if job.Spec.Spool {
		e.Output = job.Spec.Output
	}
	m.record(e, out)
	delete(m.jobs, job.ID)
	m.countOthers(job)
	m.outputs.remove(job)
	m.forgetOrder(job)
	m.inputs -= job.Spec.Input.BlockBytes()
	m.dropTails(job.ID)
	return nil
}

// moveJob makes a transition of a job, which the caller has checked.
func (m *Machine) moveJob(job *Job, e JobEvent) {
	next, err := job.Status.Next(e)
	if err != nil {
		panic(fmt.Sprintf("job %d: %v", job.ID, err))
	}
	job.Status = next
}

func (m *Machine) endJob(job *Job, e JobEvent, out *Result) {
	if job.Status == JobWaiting {
		m.leave(job)
	}
	m.moveJob(job, e)
	job.Ended = m.time
	if job.Status == JobDone {
		job.Error = "" // a task died, but the job needed one success
	}
	if at, ok := slices.BinarySearch(m.live, job.ID); ok {
		m.live = slices.Delete(m.live, at, at+1)
	}
	if m.openBy[job.Spec.User]--; m.openBy[job.Spec.User] == 0 {
		delete(m.openBy, job.Spec.User)
	}
	m.ended = append(m.ended, job.ID)
	m.leaveEnded(job, out)
	m.retain(job, 1)
	m.record(Event{Kind: JobEnded, Job: job.ID}, out)
}

// done applies the completions of one worker in one stage.
func (m *Machine) done(c *command, out *Result) {
	defer m.releaseOthers(out)
	job := m.jobs[c.job]
	var stage *Stage
	var fence Lease
	parts := false
	if job != nil && job.Ready(int(c.stage)) {
		stage = job.Stages[c.stage]
		fence, parts = max(job.Fence, stage.Fence), stage == job.Parts()
	}
	worker := c.worker
	if m.level == 0 { // snapshots cannot record it
		worker = 0
	}
	another := false // than an output that was lost
	for i := range c.completions {
		done := &c.completions[i]
		won := stage != nil && (fence == 0 || done.Lease > fence)
		if won {
			var other bool
			won, other = stage.finish(done, worker, m.level, m.epoch)
			another = another || other
		}
		if won {
			m.count(job, stage, parts, done)
			for _, w := range c.warnings {
				if w.Stage == c.stage && w.Task == done.Index {
					job.warn(w)
				}
			}
		}
		out.Verdicts = append(out.Verdicts, Verdict{Worker: c.worker, Job: c.job, Stage: c.stage, Task: done.Index, Lease: done.Lease, Won: won})
	}
	if another && m.level >= 2 { // older versions leave the readers done
		m.loseReaders(job, c.stage, 0, out)
	}
	if stage != nil && stage.settled() {
		m.others = c.others || stage.Done+stage.Dead < stage.Tasks // closed by the first success
		m.stageSettled(job, c.stage, out)
	}
}

// count adds a winner to the job's totals. Parts is true if the stage makes the parts.
func (m *Machine) count(job *Job, stage *Stage, parts bool, c *Completion) {
	if job.Started == 0 {
		job.Started = m.time
	}
	if stage.Role == RoleMap {
		job.ReadBytes += c.InputBytes
	}
	if parts {
		job.OutputBytes += c.Size
		job.Records += c.Records
		stage.Closed = job.Spec.FirstSuccess
	}
}

func (m *Machine) failed(c *command, out *Result) {
	defer m.releaseOthers(out)
	f := *c.failure
	f.Time = m.time
	job := m.jobs[c.job]
	if job == nil || !job.Ready(int(c.stage)) || job.Fenced(int(c.stage), c.task, f.Lease) {
		return
	}
	stage := job.Stages[c.stage]
	dead, ok := stage.fail(c.task, f, job.Spec.Retries, m.epoch)
	if !ok {
		return
	}
	if c.tail != nil {
		m.keepTail(KeptTail{c.tail, job.ID, c.stage, c.task, stage.Failures(c.task).Ended, f.Worker, f.Lease})
	}
	if job.Started == 0 {
		job.Started = m.time
	}
	m.others = c.others || job.leasable()
	e := Event{Kind: TaskReopened, Job: job.ID, Stage: c.stage, Task: c.task, Worker: f.Worker, Fault: f.Kind, Lease: f.Lease}
	e.Count = stage.Failures(c.task).Counts[f.Kind]
	if dead {
		e.Kind, e.Message = TaskDied, f.Message
		if job.Error == "" || f.Cancel {
			job.Error = fmt.Sprintf("task %d/%s/%d: %s", job.ID, stage.Name, c.task, f.Message)
		}
		m.record(e, out)
		m.settle(job, c.stage, f.Cancel, out)
	} else {
		e.Wait = f.WaitMS
		out.Events = append(out.Events, e)
	}
}

// settle ends stage i if it has no task to run any more, too many dead ones, or one that cancels the job.
func (m *Machine) settle(job *Job, i uint32, cancel bool, out *Result) {
	settled := job.Stages[i].settled()
	n, tooMany := job.dead()
	switch {
	case cancel:
		job.Error = "stopped by its program: " + job.Error
	case tooMany && !settled:
		job.Error = fmt.Sprintf("stopped after %s (--max-fails %v); the first: %s", Counted(n, "failed task"), job.Spec.MaxFails, job.Error)
	}
	if settled || tooMany || cancel {
		m.stageSettled(job, i, out)
	}
}

// Counted is a number with its noun.
func Counted[N int | int64 | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// outputLost opens a done task again, or lets it die if that was too often. Only a winner can be lost, so a late report changes nothing, and nor does
// one of an output that no stage needs any more.
func (m *Machine) outputLost(c *command, out *Result) {
	defer m.releaseOthers(out)
	job := m.jobs[c.job]
	if job == nil || job.Status != JobActive || int(c.stage) >= len(job.Stages) || m.level >= 2 && !job.Needs(c.stage) ||
		!m.lose(job, c.stage, c.task, c.lease, c.fence, out) {
		return
	}
	stage := job.Stages[c.stage]
	if m.level < 2 {
		stage.void(c.task, m.epoch)
		return
	}
	f := Failure{Kind: LostOutput, Lease: c.lease, Time: m.time}
	if c.failure != nil {
		f.Worker, f.Message = c.failure.Worker, c.failure.Message
	}
	if !stage.charge(c.task, f, job.Spec.Retries, m.epoch) {
		return
	}
	e := Event{Kind: TaskDied, Job: job.ID, Stage: c.stage, Task: c.task, Worker: f.Worker, Lease: f.Lease, Message: f.Message}
	e.Count = stage.Failures(c.task).Counts[LostOutput]
	if job.Error == "" {
		job.Error = fmt.Sprintf("task %d/%s/%d: its output was lost %d times: %s", job.ID, stage.Name, c.task, e.Count, f.Message)
	}
	m.record(e, out)
	m.settle(job, c.stage, false, out)
}

// Needs reports whether a stage that comes from stage i has to run, so that its outputs are read.
func (j *Job) Needs(i uint32) bool {
	return slices.ContainsFunc(j.Stages, func(s *Stage) bool { return !s.complete() && slices.Contains(s.From, i) })
}

// lose opens a done task again. The attempts of the stages that come from its stage are void up to fence, and they wait until its stage is complete
// again. Their done tasks stay done: if the output is another one when it is made again, because the program is not deterministic, they are opened then
// (loseReaders), since parts that were made of different outputs must not be mixed. A stage that is complete may have been read on, so its tasks are opened at once.
func (m *Machine) lose(job *Job, number uint32, task uint64, lease, fence Lease, out *Result) bool {
	stage := job.Stages[number]
	if stage.Role == RoleCommit {
		return false
	}
	var ready []int // stages that come from it
	var complete []uint32
	for i, s := range job.Stages {
		switch {
		case !slices.Contains(s.From, number):
		case s.complete():
			complete = append(complete, uint32(i))
		case job.Ready(i):
			ready = append(ready, i)
		}
	}
	gone, ok := stage.lose(task, lease, m.level >= 2, m.epoch)
	if !ok {
		return false
	}
	m.uncount(job, int(number), task, gone)
	for _, i := range ready {
		job.Stages[i].Fence = max(job.Stages[i].Fence, fence)
		out.Events = append(out.Events, Event{Kind: StageEnded, Job: job.ID, Stage: uint32(i)})
	}
	out.Events = append(out.Events, Event{Kind: TaskLost, Job: job.ID, Stage: number, Task: task, Lease: lease})
	for _, i := range complete {
		if m.level >= 2 { // older versions leave them done
			m.loseTasks(job, i, fence, out)
		}
	}
	return true
}

// loseReaders opens the done tasks of the stages that come from a stage, of which an output is another one than they have read.
func (m *Machine) loseReaders(job *Job, number uint32, fence Lease, out *Result) {
	for i, s := range job.Stages {
		if slices.Contains(s.From, number) {
			m.loseTasks(job, uint32(i), fence, out)
		}
	}
}

// loseTasks opens the done tasks of a stage, at no charge.
func (m *Machine) loseTasks(job *Job, number uint32, fence Lease, out *Result) {
	stage := job.Stages[number]
	for task := range stage.DoneTasks(0) {
		made, _ := stage.Output(task)
		if m.lose(job, number, task, made.Winner, fence, out) {
			stage.void(task, m.epoch)
		}
	}
}

// stageSettled ends the job, or starts the stages that come after stage i, which has no task to run any more, or too many dead ones.
func (m *Machine) stageSettled(job *Job, i uint32, out *Result) {
	stage := job.Stages[i]
	job.skipCheck()
	switch {
	case job.Status != JobActive && !stage.complete():
		m.endJob(job, CleanupFailed, out)
	case job.Status != JobActive:
		m.endJob(job, CleanupDone, out)
	case !stage.complete():
		m.moveJob(job, TasksDead)
		m.record(Event{Kind: JobEnding, Job: job.ID}, out)
		if stage.Role == RoleCommit {
			m.endJob(job, CleanupDone, out) // the commit failed: outputs stay for a retry
			return
		}
		m.cleanUp(job, out)
	case !slices.ContainsFunc(job.Stages, func(s *Stage) bool { return !s.complete() }):
		m.endJob(job, StagesDone, out)
	default:
		out.Events = append(out.Events, Event{Kind: StageEnded, Job: job.ID, Stage: i})
		for k := int(i) + 1; k < len(job.Stages); k++ {
			if slices.Contains(job.Stages[k].From, i) && job.Ready(k) {
				m.record(Event{Kind: StageStarted, Job: job.ID, Stage: uint32(k)}, out)
			}
		}
	}
}

// startReady starts the stages that are ready.
func (m *Machine) startReady(job *Job, out *Result) {
	for i := range job.Stages {
		if job.Ready(i) {
			m.record(Event{Kind: StageStarted, Job: job.ID, Stage: uint32(i)}, out)
		}
	}
}

// Len is the number of jobs, ended ones included.
func (m *Machine) Len() int { return len(m.jobs) }

// InputBytes is the size of the input blocks of all jobs.
func (m *Machine) InputBytes() uint64 { return m.inputs }

// OldestEnded is the ended job with the smallest number whose input blocks take at least so many bytes, and that is not pinned; ok is false if
// there is none.
func (m *Machine) OldestEnded(inputMin uint64) (id JobID, ok bool) {
	for j, job := range m.jobs {
		if job.Status.Ended() && !job.Pinned && (!ok || j < id) && job.Spec.Input.BlockBytes() >= inputMin {
			id, ok = j, true
		}
	}
	return id, ok
}
