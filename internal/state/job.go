package state

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// JobID numbers jobs from 1 in the order of the log.
type JobID uint64

// WorkerID numbers workers from 1 in the order of the log.
type WorkerID uint64

// Lease is a fencing number: the leader's term and a sequence within it. A later lease is always larger.
type Lease uint64

// leaseSeqBits leaves 2^40 leases a term and 2^24 terms.
const leaseSeqBits = 40

// NewLease makes the lease number of a term's seq-th lease.
func NewLease(term, seq uint64) Lease { return Lease(term<<leaseSeqBits | seq&(1<<leaseSeqBits-1)) }

// Term is the term of the leader that gave the lease.
func (l Lease) Term() uint64 { return uint64(l) >> leaseSeqBits }

// What a submit may hold besides its input: it is one log entry, and one message to each worker.
const (
	DescriptionBytesMax = 1 << 20 // of the command, settings, environment, secrets and labels together
	NamesBytesMax       = 2 << 20 // of the names of the inputs
)

// Spec is a submitted job. It never changes: a retry with changed files replaces it.
type Spec struct {
	Name, User   string
	Builtin      string   // a built-in job, or
	Class        string   // by which the original system's clients name it, in JSON
	Argv         [][]byte // a command
	Placeholders uint8    // which placeholders it has: a Mode of package placeholder
	Placeholder  string   // the only one; empty: the default
	Shell        bool     // its last argument is a command line for a shell, in which values are quoted
	Input        Input
	InputNames   []string // as the user gave them
	Output       string   // folder; never empty
	Spool        bool     // Output is in the spool: nothing is published
	Overwrite    bool
	KeepPartial  bool // publish done tasks even if the job fails or is stopped
	FirstSuccess bool // one done task is enough
	Collect      bool // the program merges its parts into a result
	Settings     map[string]string
	Dir          string
	Retries      uint32 // failures of one kind that a task survives; more than RetriesMax counts as RetriesMax
	Priority     uint32
	SlotsPerTask uint32
	TimeoutMS    uint64
	GraceMS      uint64 // between SIGTERM and SIGKILL; 0: the default
	Memory       uint64 // bytes an attempt may use; 0: not limited
	Labels       map[string]string
	Records      string            // kind of records (package record); empty: lines
	Header       uint32            // lines or rows at the beginning of each file that are no records
	Stages       []StageSpec       // the plan; never empty once it is in the state
	Env          map[string]string // variables of the tasks, beside those that each worker gives them
	Secrets      []Secret          // further variables, by name
	Sandbox      bool              // tasks can write to their temporary folder only
	NoNetwork    bool              // tasks have no network
	Reduce       string            // command line of the reduce stage, for sh -c; empty: there is none
	Combine      string            // command line, for sh -c, over the sorted output of a map task; empty: there is none
	Partitions   uint32            // of the reduce stage, as requested; 0: the plan has chosen
	NameParts    string            // pattern of the names of the parts (package partname); empty: part-NNNNN
	MaxFails     *FailLimit        // a job with more dead tasks ends at once; nil: all tasks run
	RetryDelayMS uint64            // before a failed task is leased again, the first time; 0: the default
	DelayMS      uint64            // between two leases
	MaxRunning   uint32            // leases at one time; 0: any number
	NoSecond     bool              // no task gets a second attempt while the first one runs
	Resources    []Resource        // that an attempt needs, by name
	After        []Dependency      // it starts when these have ended
	Deferred     *Deferred         // its input is planned then; nil: it was at submit, or has been since
	Locks        []LockName        // that its user has chosen
	// Data is where it reads, shared, and where it writes: cleaned locations, with links resolved. Without a name that is not shared, Output is one.
	Data           []LockName
	FailOnConflict bool // it does not wait for locks
	// SplitMax is what Input.SplitSize would be for an input of any size: the leader has chosen a size up to it; 0: the user has.
	SplitMax uint64
	Pack     *Packing // of the input's small files; nil: each is a task, unless the user says otherwise
}

// Packing is how small files share a task.
type Packing struct {
	Size   uint64 // bytes of a task; 0: no files share one
	Fitted bool   // the leader chooses the size, and how many files a task has, from the input and the slots
}

// FailLimit is how many tasks of a job may be dead.
type FailLimit struct {
	N       uint64
	Percent bool // N percent of the map tasks
}

func (l FailLimit) String() string {
	if l.Percent {
		return fmt.Sprintf("%d%%", l.N)
	}
	return strconv.FormatUint(l.N, 10)
}

// Secret is a variable of a job's tasks. Its value is sealed under a key that is not in the log.
type Secret struct {
	Name   string
	Sealed []byte
}

// JobStatus is the status of a job in the log.
type JobStatus uint8

// The statuses of a job.
const (
	JobActive   JobStatus = iota // its stages run, each once those that it comes from are complete
	JobStopping                  // stopped: its commit stage removes or publishes the outputs
	JobFailing                   // tasks are dead: its commit stage publishes the other outputs
	JobDone
	JobFailed
	JobStopped
	JobWaiting // for the jobs that it comes after, or for locks
)

func (s JobStatus) String() string {
	return nameOf(s, "status", "active", "stopping", "failing", "done", "failed", "stopped", "waiting")
}

// Ended reports whether the job has ended.
func (s JobStatus) Ended() bool { return s == JobDone || s == JobFailed || s == JobStopped }

// JobEvent is what can happen to a job.
type JobEvent uint8

// The events of a job.
const (
	StagesDone    JobEvent = iota // every stage is complete
	TasksDead                     // a stage has ended with dead tasks, or there are too many
	StopAsked                     // a stop was accepted
	RetryAsked                    // a retry was accepted
	CleanupDone                   // the commit stage of a stopping or failing job is complete, or there is none
	CleanupFailed                 // its task died
	Opened                        // nothing holds the job any more
	Blocked                       // a job that it comes after has not ended as it must
	InputFailed                   // its deferred input cannot be planned
	LocksRefused                  // its locks are not free, and it does not wait, or others have used its output meanwhile
)

func (e JobEvent) String() string {
	return nameOf(e, "event", "stages done", "tasks dead", "stop asked", "retry asked", "cleanup done", "cleanup failed", "opened", "blocked", "input failed", "locks refused")
}

// Next is the transition table of a job. A transition that is not in it is an error.
func (s JobStatus) Next(e JobEvent) (JobStatus, error) {
	type step struct {
		from JobStatus
		on   JobEvent
	}
	next, ok := map[step]JobStatus{
		{JobActive, StagesDone}:      JobDone,
		{JobActive, TasksDead}:       JobFailing,
		{JobActive, StopAsked}:       JobStopping,
		{JobFailing, StopAsked}:      JobStopping,
		{JobFailing, CleanupDone}:    JobFailed,
		{JobFailing, CleanupFailed}:  JobFailed,
		{JobStopping, CleanupDone}:   JobStopped,
		{JobStopping, CleanupFailed}: JobStopped,
		{JobFailed, StopAsked}:       JobStopping,
		{JobFailed, RetryAsked}:      JobWaiting,
		{JobStopped, RetryAsked}:     JobWaiting,
		{JobDone, RetryAsked}:        JobWaiting, // of lost outputs
		{JobWaiting, StopAsked}:      JobStopping,
		{JobWaiting, Opened}:         JobActive,
		{JobWaiting, Blocked}:        JobFailed,
		{JobWaiting, InputFailed}:    JobFailed,
		{JobWaiting, LocksRefused}:   JobFailed,
	}[step{s, e}]
	if !ok {
		return s, fmt.Errorf("invalid event %q of a job that is %v", e, s)
	}
	return next, nil
}

// Job is one job. It belongs to the machine: readers must not change it.
type Job struct {
	ID     JobID
	UID    string
	Spec   *Spec
	Status JobStatus
	Stages []*Stage // of Spec.Stages, one each

	Created, Started, Ended int64 // Unix ms; 0: not yet. Started is the first completion or failure.
	Error                   string
	Blocker                 JobID // of a failed job that was not run: the one because of which, the first in a line of jobs
	ReadBytes               uint64
	OutputBytes             uint64
	Records                 uint64
	Fence                   Lease // see Fenced
	Warnings                []Warning
	Pinned                  bool // kept whatever the retention is
}

// WarningsMax bounds the warnings of a job.
const WarningsMax = 8

// Warning is what the job's user must know about a done task. Of several tasks with the same text, the first is kept.
type Warning struct {
	Stage uint32
	Task  uint64
	Text  string
}

// warn adds the warning of a task. Snapshots share the slice, but for its spare capacity.
func (j *Job) warn(w Warning) {
	same := func(k Warning) bool { return k.Text == w.Text }
	if len(j.Warnings) < WarningsMax && !slices.ContainsFunc(j.Warnings, same) {
		w.Text = w.Text[:min(len(w.Text), messageMax)]
		j.Warnings = append(j.Warnings, w)
	}
}

// unwarn drops the warning of a task that is no longer done.
func (j *Job) unwarn(stage int, task uint64) {
	of := func(w Warning) bool { return int(w.Stage) == stage && w.Task == task }
	if slices.ContainsFunc(j.Warnings, of) {
		j.Warnings = slices.DeleteFunc(slices.Clone(j.Warnings), of)
	}
}

// clone returns a copy that shares the pages of its stages. Only one of the two may be changed afterwards.
func (j *Job) clone() *Job {
	c := *j
	c.Stages = make([]*Stage, len(j.Stages))
	for i, s := range j.Stages {
		c.Stages[i] = s.clone()
	}
	return &c
}

// Fenced reports whether a lease is void: it was granted before the job was last stopped or retried, or before an output that its attempt
// may have read was lost, or its own output was lost.
func (j *Job) Fenced(stage int, task uint64, l Lease) bool {
	s := j.Stages[stage]
	fence := max(j.Fence, s.Fence)
	return fence != 0 && l <= fence || s.Status(task) == TaskOpen && s.lost(task, l)
}

// Ready reports whether tasks of stage i may run: the stages that it comes from are complete, and it has open tasks. While a job is
// stopping or failing, only its commit stage is ready.
func (j *Job) Ready(i int) bool {
	if i < 0 || i >= len(j.Stages) || j.Stages[i].settled() {
		return false
	}
	switch j.Status {
	case JobActive:
		return j.hasInputs(i)
	case JobStopping, JobFailing:
		return j.Stages[i].Role == RoleCommit
	case JobWaiting, JobDone, JobFailed, JobStopped:
	}
	return false
}

// committing reports whether the commit stage has started, even if it waits for a lost output: parts may be published. Commit is its
// number, or -1.
func (j *Job) committing(commit int) bool {
	return commit >= 0 && (j.Ready(commit) || j.Stages[commit].Fence != 0)
}

// hasInputs reports whether the stages that stage i comes from are complete.
func (j *Job) hasInputs(i int) bool {
	return !slices.ContainsFunc(j.Stages[i].From, func(from uint32) bool { return !j.Stages[from].complete() })
}

// Open reports whether a task of stage i may be leased, or is leased.
func (j *Job) Open(i int, task uint64) bool {
	return j.Ready(i) && j.Stages[i].Status(task) == TaskOpen
}

// Final reports whether stage i has all the outputs that it will have, so that other stages may read them.
func (j *Job) Final(i int) bool {
	return j.Stages[i].complete() || j.Status != JobActive && !j.Ready(i)
}

// skipCheck closes the check stage of an active job that is ready and has nothing to check: a task that has written nothing has no file in the spool.
func (j *Job) skipCheck() {
	for i, s := range j.Stages {
		if j.Status == JobActive && s.Role == RoleCheck && j.Ready(i) {
			s.Closed = j.OutputBytes == 0 && !slices.ContainsFunc(j.Stages, func(s *Stage) bool {
				result, _ := s.Output(0)
				return s.Role == RoleCollect && result.Size > 0
			})
		}
	}
}

// Parts returns the stage whose outputs are the parts of the job.
func (j *Job) Parts() *Stage { return j.Stages[j.Spec.PartStage()] }

// TaskCounts counts the tasks of all its stages, without those that collect or commit, and how many of them are done.
func (j *Job) TaskCounts() (all, done uint64) {
	for _, s := range j.Stages {
		if s.Role == RoleMap || s.Role == RoleReduce {
			all, done = all+s.Tasks, done+s.Done
		}
	}
	return all, done
}

// Reads reports whether each task of stage i reads a part of the input.
func (s *Spec) Reads(i int) bool {
	return s.Stages[i].Role == RoleMap && s.Input.Kind != InputNone
}

// Splits reports whether the leases of stage i carry a split each.
func (s *Spec) Splits(i int) bool {
	return s.Reads(i) && s.Input.Kind != InputRange
}

// SecretNames returns the names of the secrets, in order.
func (s *Spec) SecretNames() []string {
	var names []string
	for i := range s.Secrets {
		names = append(names, s.Secrets[i].Name)
	}
	return names
}

// Protocol returns the version of the workers' protocol (package wire) that a worker must support to run the job; 0: any.
func (s *Spec) Protocol() uint32 {
	if s.Records != "" || s.Header > 0 || len(s.Env) > 0 || len(s.Secrets) > 0 || s.Sandbox || s.NoNetwork ||
		s.Input.Kind == InputList || s.Input.packed() || s.NameParts != "" || s.Placeholders > 0 || s.Placeholder != "" || s.Shell ||
		slices.ContainsFunc(s.Stages, func(stage StageSpec) bool { return stage.Role == RoleReduce || stage.Role == RoleCheck }) {
		return 2
	}
	return 0
}

// dead is how many tasks of the job are dead, and whether there are more than Spec.MaxFails allows.
func (j *Job) dead() (n uint64, tooMany bool) {
	tasks := uint64(0)
	for _, s := range j.Stages {
		n += s.Dead
		if s.Role == RoleMap {
			tasks += s.Tasks
		}
	}
	most := j.Spec.MaxFails
	switch {
	case most == nil:
		return n, false
	case most.Percent:
		return n, n*100 > most.N*tasks && !j.Growing() // of how many is not known before
	}
	return n, n > most.N
}

// newStages returns the stages of a new job.
func newStages(s *Spec) []*Stage {
	stages := make([]*Stage, len(s.Stages))
	for i := range s.Stages {
		stages[i] = newStage(&s.Stages[i])
	}
	stages[0].growing = s.Input.Growing
	return stages
}

// commitStage returns the number of the commit stage, or -1.
func (j *Job) commitStage() int {
	return slices.IndexFunc(j.Stages, func(s *Stage) bool { return s.Role == RoleCommit })
}

// FailureKind is the cause of a failure. Each kind has its own budget. The numbers are those of the wire.
type FailureKind uint8

// The kinds of failure.
const (
	// LostOutput is that of an attempt that was done, and whose output could not be read later. No attempt fails by it, and the wire has no number for it.
	LostOutput FailureKind = iota
	ProgramError
	Timeout
	OutOfMemory
	LostWorker
	Preempted
	BadInput
	BadProgram
	OutputError
	failureKinds
)

// FailureKinds returns all kinds by which an attempt can fail.
func FailureKinds() (list []FailureKind) {
	for k := ProgramError; k < failureKinds; k++ {
		list = append(list, k)
	}
	return list
}

func (k FailureKind) String() string {
	return nameOf(k, "kind", "lost_output", "program_error", "timeout", "out_of_memory", "lost_worker", "preempted", "bad_input", "bad_program", "output_error")
}

// lostWorkerBudget bounds how many workers a task may be lost with, whether it was the cause or not.
const lostWorkerBudget = 8

// RetriesMax is the highest retry budget: failures are counted in a byte.
const RetriesMax = math.MaxUint8 - 1

// badProgramBudget lets a command that is missing on one worker be tried on two others.
const badProgramBudget = 2

// lostOutputBudget lets the output of a task be lost a few times: a disk that damages each would make it for ever.
const lostOutputBudget = 4

// budget is how many failures of a kind a task survives; it dies of the next one. Preempted attempts are not charged.
func budget(k FailureKind, retries uint32) (n uint32, limited bool) {
	retries = min(retries, RetriesMax)
	switch k {
	case ProgramError, Timeout, OutOfMemory, OutputError:
		return retries, true
	case LostOutput:
		return lostOutputBudget, true
	case LostWorker:
		return lostWorkerBudget, true
	case BadProgram:
		return min(badProgramBudget, retries), true
	case BadInput:
		return 0, true
	case Preempted:
		return 0, false
	case failureKinds:
	}
	return retries, true
}

// Failure is one failed attempt.
type Failure struct {
	Kind    FailureKind
	Attempt uint32
	Worker  WorkerID
	Lease   Lease
	Time    int64  // Unix ms
	Millis  uint32 // run time; sticks at the largest number
	Message string
	// WaitMS is the least time before the next attempt, in ms, which the program has asked for; 0: it has not.
	WaitMS uint64
	// Cancel says that the program ends its job: the task is dead, and so is the job, however many tasks may fail.
	Cancel bool
}
