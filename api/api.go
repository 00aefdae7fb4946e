// Package api holds the public HTTP/JSON types of Bridge Four: data only. The same types serve the leader, the Go client
// and the command line's --json.
package api

import (
	"strings"
	"time"
)

// JobRequest is the body of POST /v1/jobs and of a job file (YAML or JSON). Its tasks read Inputs, or are the items of lists: the product of Lines
// or Range and the lists of Each. Without either the job has one task, unless the program needs an input.
type JobRequest struct {
	Name    string  `json:"name,omitempty" doc:"Shown in lists; need not be unique" maxLength:"200"`
	User    string  `json:"user,omitempty" doc:"Ignored: a job belongs to the authenticated user, which is the user that runs the leader until there are identities" maxLength:"100" deprecated:"true"`
	Program Program `json:"program"`

	Inputs []string `json:"inputs,omitempty" doc:"Files, folders (their files, not hidden ones), globs (**, {a,b}); absolute" example:"/data/books"`
	Lines  *Lines   `json:"lines,omitempty" doc:"Instead of inputs: one task per line"`
	Range  *Range   `json:"range,omitempty" doc:"Instead of inputs: one task per number"`
	Each   []List   `json:"each,omitempty" doc:"Instead of inputs: one task for each combination of the items of these lists; lines or a range come before them. The last list changes first"`

	Shuffle bool   `json:"shuffle,omitempty" doc:"Items in a random order"`
	Limit   uint64 `json:"limit,omitempty" doc:"At most so many items; 0: all"`
	Batch   uint64 `json:"batch,omitempty" doc:"Items of a task, which a command gets as the arguments that {} stands for, or else on standard input, one a line; 0: one item, as an argument" maximum:"1000000"`

	Split string `json:"split,omitempty" doc:"Largest split, such as 64MiB, or none: one task per file. Only text is cut. Without it, 64MiB; less if built-in jobs, or commands with a reduce, would have too few tasks for the slots of the cluster, but 1MiB at least"`
	Pack  string `json:"pack,omitempty" doc:"Small files up to this size together share a task, 256 at most, or none. Without it, those of built-in jobs do if there are many more files than slots, and no option counts, names or paces tasks; those of commands never do"`

	Records string `json:"records,omitempty" doc:"Files are cut between records: lines, fixed:N (bytes), start:REGEXP (a record begins with a matching line), fasta, fastq (four lines a record), csv or jsonl" default:"lines"`
	Header  *int   `json:"header,omitempty" doc:"The first lines of each file (rows of csv) go to each of its splits. Defaults to 1 for csv, otherwise to 0" minimum:"0" maximum:"10000"`

	Partitions int `json:"partitions,omitempty" doc:"Tasks of the program's reduce, or of each later stage of a built-in job; 0: one for each 64MiB of input, and one for items" minimum:"0" maximum:"65536"`

	Output      string `json:"output,omitempty" doc:"Folder for the parts and _SUCCESS; absolute. Defaults to a folder in the cluster's spool" example:"/data/counts"`
	Overwrite   bool   `json:"overwrite,omitempty" doc:"Replace the content of output once the new output is complete"`
	NameParts   string `json:"name_parts,omitempty" doc:"Pattern of the names of the parts below output, with the placeholders of a command, such as {sample}.vcf or {/.}.txt; names must differ. Defaults to part-NNNNN"`
	KeepPartial bool   `json:"keep_partial,omitempty" doc:"A job that fails or is stopped publishes the parts it has, and _PARTIAL"`

	Set           map[string]string `json:"set,omitempty" doc:"User settings, passed to the program"`
	Env           map[string]string `json:"env,omitempty" doc:"Variables of the tasks' environment, beside PATH, HOME, USER, LANG, TZ and TMPDIR of the worker and B4_*"`
	Secrets       map[string]string `json:"secrets,omitempty" doc:"Further variables of the tasks' environment, encrypted in the log; no answer has their values"`
	Sandbox       bool              `json:"sandbox,omitempty" doc:"Commands can write only to their temporary folder (TMPDIR); their output is not affected"`
	NoNetwork     bool              `json:"no_network,omitempty" doc:"Commands have no network"`
	Dir           string            `json:"dir,omitempty" doc:"Working directory of commands; absolute"`
	Retries       *int              `json:"retries,omitempty" doc:"Retries of a failed task" default:"3" minimum:"0" maximum:"100"`
	RetryDelay    string            `json:"retry_delay,omitempty" doc:"Least time before a failed task is run again, such as 30s. It doubles with each failure of a kind, up to 16 times as long. Without it the delay is 100ms, and doubles up to 30s"`
	MaxFails      string            `json:"max_fails,omitempty" doc:"When more than so many tasks, such as 10, or percent of them, such as 5%, have failed for good, the job fails at once. Without it all tasks run first" maxLength:"21"`
	Delay         string            `json:"delay,omitempty" doc:"Least time between the starts of two tasks, such as 500ms"`
	MaxRunning    int               `json:"max_running,omitempty" doc:"Most tasks that run at one time, on all workers together; 0: any number" minimum:"0" maximum:"1048576"`
	NoSpeculation bool              `json:"no_speculation,omitempty" doc:"No task gets a second attempt on another worker while its first one, which takes far longer than others, still runs"`
	Timeout       string            `json:"timeout,omitempty" doc:"Time limit of an attempt, such as 90s or 2h"`
	Grace         string            `json:"grace,omitempty" doc:"Time between SIGTERM and SIGKILL when a command is stopped; 2s by default"`
	Priority      *int              `json:"priority,omitempty" doc:"Higher runs first" default:"50" minimum:"0" maximum:"100"`
	SlotsPerTask  int               `json:"slots_per_task,omitempty" doc:"Slots per attempt" minimum:"0" maximum:"1024"`
	Memory        string            `json:"memory,omitempty" doc:"Memory limit of an attempt, such as 2GiB: at least 16MiB, or 1MiB of a command"`
	Resources     map[string]int    `json:"resources,omitempty" doc:"Countable things of the worker that each attempt needs for itself, such as gpu: 1"`
	Labels        map[string]string `json:"labels,omitempty" doc:"Run only on workers with these labels"`
	FirstSuccess  bool              `json:"first_success,omitempty" doc:"Done when one task succeeds; the others are stopped"`

	// Class is the jobClass of the original system, in JSON.
	Class string `json:"-"`

	Locks      []string `json:"locks,omitempty" doc:"Locks that the job holds while it runs: NAME, NAME:shared or NAME:exclusive; a name with a colon needs a mode" maxItems:"64" example:"licence"`
	OnConflict string   `json:"on_conflict,omitempty" doc:"If its locks, its inputs or its output are not free, it waits, or it is refused, and fails if they are not when it could start" enum:"wait,fail" default:"wait"`

	After []string `json:"after,omitempty" doc:"It starts when these jobs have ended: 12, or 12:ok, which must be done (if not, this job fails, and a retry of that one lets it run again); 12:any, however it ends. In a flow also the name of another job of it" maxItems:"1000"`
}

// FlowRequest is the body of POST /v1/flows and of a job file with several jobs.
type FlowRequest struct {
	Jobs []JobRequest `json:"jobs" doc:"Each with a name of its own, by which others come after it. All are submitted, or none" minItems:"1" maxItems:"1000"`
}

// Flow is the answer to POST /v1/flows.
type Flow struct {
	Jobs []Job `json:"jobs" doc:"In the order of the request"`
}

// Program is what a job runs: exactly one field is set.
type Program struct {
	Builtin string   `json:"builtin,omitempty" doc:"Name of a built-in job" example:"wordcount"`
	Command []string `json:"command,omitempty" doc:"Command and its arguments. {} stands for the input's path or the item; {1} and {name} for a column; {.} {/} {//} {/.} for a part of a path; {#} and {%} for the number of the task and of the slot"`
	Shell   string   `json:"shell,omitempty" doc:"Command line for sh -c; the values of its placeholders are quoted"`

	Reduce string `json:"reduce,omitempty" doc:"Command line for sh -c that reads what the tasks of the command have written: lines KEY<TAB>VALUE, each key in one of the partitions, sorted by key. Its outputs are the parts" maxLength:"131072"`

	Combine string `json:"combine,omitempty" doc:"Command line for sh -c that reads what a task of the command has written, sorted by key, and writes it again, shorter, before it is moved to the tasks of reduce" maxLength:"131072"`

	Placeholder    string `json:"placeholder,omitempty" doc:"The only placeholder of the command, instead of those in braces"`
	NoPlaceholders bool   `json:"no_placeholders,omitempty" doc:"The command has no placeholders: an item is its last argument"`
}

// Text is the program in one line, for people.
func (p Program) Text() string {
	switch {
	case p.Builtin != "":
		return p.Builtin
	case p.Shell != "":
		return p.Shell
	}
	return strings.Join(p.Command, " ")
}

// Lines is a list of items. Raw holds them one per line, with any bytes; Items is easier to write.
type Lines struct {
	Items   []string `json:"items,omitempty"`
	Null    bool     `json:"null,omitempty" doc:"The lines of raw end in a zero byte instead of a newline. Must come before raw"`
	Columns []string `json:"columns,omitempty" doc:"The items are the values of a table, row by row, with columns of these names; empty: a column without a name" maxItems:"10000"`
	Raw     []byte   `json:"raw,omitempty" doc:"base64; lines ended by newline"`
}

// Range is From to To, inclusive.
type Range struct {
	From  int64  `json:"from"`
	To    int64  `json:"to"`
	Step  uint64 `json:"step,omitempty" doc:"Difference of two numbers; 0: 1"`
	Width uint32 `json:"width,omitempty" doc:"Least number of digits, with zeros before them" maximum:"64"`
}

// List is a list of values or numbers.
type List struct {
	Name   string   `json:"name,omitempty" doc:"Of its column, for the placeholder {name}"`
	Values []string `json:"values,omitempty"`
	Ranges []Range  `json:"ranges,omitempty" doc:"Instead of values: numbers, one range after the other" maxItems:"100000"`
	Linked bool     `json:"linked,omitempty" doc:"It goes on together with the list before it, as far as the shorter one"`
}

// Job statuses.
const (
	JobWaiting = "waiting" // no task has started, or may start yet
	JobRunning = "running"
	JobHalted  = "halted" // open tasks, none running, and no worker that could run one
	JobDone    = "done"
	JobFailed  = "failed"
	JobStopped = "stopped"
)

// Task statuses.
const (
	TaskOpen    = "open"
	TaskRunning = "running"
	TaskDone    = "done"
	TaskDead    = "dead"
)

// Stage roles.
const (
	RoleMap     = "map"
	RoleCollect = "collect"
	RoleReduce  = "reduce"
	RoleCommit  = "commit"
	RoleCheck   = "check" // that what the job has written is there, if it has no output of its own
)

// Job is one job and its progress.
type Job struct {
	ID        uint64   `json:"id"`
	Name      string   `json:"name" example:"wordcount"`
	User      string   `json:"user,omitempty" doc:"Who submitted it; jobs of different users share the slots fairly"`
	Program   Program  `json:"program"`
	Status    string   `json:"status" enum:"waiting,running,halted,done,failed,stopped"`
	Error     string   `json:"error,omitempty" doc:"Why it failed"`
	Output    string   `json:"output,omitempty"`
	NameParts string   `json:"name_parts,omitempty" doc:"Pattern of the names of the parts, if not part-NNNNN"`
	Spool     bool     `json:"spool,omitempty" doc:"Output is a folder in the cluster's spool: the job named none"`
	Partial   bool     `json:"partial,omitempty" doc:"It has failed or was stopped, and output has the parts of the tasks that were done, and _PARTIAL"`
	Warnings  []string `json:"warnings,omitempty" doc:"Of done tasks, the first ones; in the answer to a submit, of the request"`
	// Stages in the order of the plan: each comes after those that it reads.
	Stages []Stage `json:"stages"`

	Inputs   []string          `json:"inputs,omitempty"`
	Set      map[string]string `json:"set,omitempty"`
	Env      []string          `json:"env,omitempty" doc:"Names of the variables that it adds to its tasks' environment; the values are not shown"`
	Secrets  []string          `json:"secrets,omitempty" doc:"Names of the secret ones"`
	Priority int               `json:"priority"`
	Retries  int               `json:"retries"`
	Grace    string            `json:"grace,omitempty" doc:"Time between SIGTERM and SIGKILL, if the job sets it"`
	MaxFails string            `json:"max_fails,omitempty" doc:"As in the request"`

	Sandbox   bool `json:"sandbox,omitempty" doc:"As in the request; a worker may confine all jobs"`
	NoNetwork bool `json:"no_network,omitempty" doc:"As in the request; a worker may confine all jobs"`

	RecordKind string `json:"record_kind,omitempty" doc:"What files are cut between, if not lines: the records of the request"`
	Header     uint32 `json:"header,omitempty" doc:"First lines of each file (rows of csv) that go to each of its splits"`

	FirstSuccess bool `json:"first_success,omitempty" doc:"Done when one task succeeds: others may have failed"`

	Growing     bool   `json:"growing,omitempty" doc:"Not all of its input has come: it gets more tasks, or has ended without them"`
	InputBytes  uint64 `json:"input_bytes" doc:"Bytes of input, if known"`
	ReadBytes   uint64 `json:"read_bytes" doc:"Bytes of input that done tasks have read"`
	OutputBytes uint64 `json:"output_bytes"`
	Records     uint64 `json:"records" doc:"Records written by done tasks"`

	Created time.Time  `json:"created"`
	Started *time.Time `json:"started,omitempty"`
	Ended   *time.Time `json:"ended,omitempty"`

	Class string `json:"-"` // as in the request

	After   []Dependency `json:"after,omitempty" doc:"The jobs that must end before it starts"`
	Blocker uint64       `json:"blocker,omitempty" doc:"It was not run because of a job that it comes after: a retry of this one lets it run"`

	Locks []string `json:"locks,omitempty" doc:"As in the request"`
	// Locking is set when the job begins to wait; who holds what then is in its explanation.
	Locking bool `json:"locking,omitempty" doc:"It waits for locks: its explanation says for which"`

	Pinned bool `json:"pinned,omitempty" doc:"It is kept whatever the retention is"`
	Hidden bool `json:"hidden,omitempty" doc:"The job is another user's: its arguments, inputs, settings and errors are left out"`
}

// PartStage is the stage whose tasks write the parts of the output.
func (j Job) PartStage() Stage {
	for _, s := range j.Stages {
		if s.Parts {
			return s
		}
	}
	if len(j.Stages) > 0 { // a server from before stages said so
		return j.Stages[0]
	}
	return Stage{}
}

// TaskCounts counts the tasks of all its stages, without those that collect or commit: how many there are, are done and are dead.
func (j Job) TaskCounts() (all, done, dead uint64) {
	for i := range j.Stages {
		if s := &j.Stages[i]; s.Role == RoleMap || s.Role == RoleReduce {
			all, done, dead = all+s.Tasks, done+s.Done, dead+s.Dead
		}
	}
	return all, done, dead
}

// IsEnded reports whether the job has ended.
func (j Job) IsEnded() bool {
	return j.Status == JobDone || j.Status == JobFailed || j.Status == JobStopped
}

// Dependency is a job that must end before another one starts.
type Dependency struct {
	Job     uint64 `json:"job"`
	Any     bool   `json:"any,omitempty" doc:"However it ends; otherwise it must be done"`
	Pending bool   `json:"pending,omitempty" doc:"It has not ended"`
}

// Pending returns the jobs that it waits for.
func (j Job) Pending() []uint64 {
	var list []uint64
	for _, d := range j.After {
		if d.Pending {
			list = append(list, d.Job)
		}
	}
	return list
}

// Stage counts the tasks of a stage: Tasks = Open + Running + Done + Dead.
type Stage struct {
	Name    string `json:"name" example:"map"`
	Role    string `json:"role" enum:"map,collect,reduce,commit,check" doc:"What its tasks do"`
	Parts   bool   `json:"parts,omitempty" doc:"Its tasks write the parts of the output"`
	Tasks   uint64 `json:"tasks"`
	Open    uint64 `json:"open"`
	Running uint64 `json:"running"`
	Done    uint64 `json:"done"`
	Dead    uint64 `json:"dead"`
	Retried uint64 `json:"retried" doc:"Failed attempts, without the last ones of dead tasks"`
	Second  uint64 `json:"second_won,omitempty" doc:"Done tasks whose output is that of a second attempt, which has overtaken the first one"`
}

// JobList is a page of jobs, newest first.
type JobList struct {
	Jobs []Job  `json:"jobs"`
	Next string `json:"next,omitempty" doc:"Cursor of the next page"`
}

// Task is one task.
type Task struct {
	Name     string     `json:"name" doc:"JOB/STAGE/INDEX" example:"1/map/7"`
	Index    uint64     `json:"index"`
	Stage    string     `json:"stage" example:"map"`
	Status   string     `json:"status" enum:"open,running,done,dead"`
	Attempts uint32     `json:"attempts" doc:"Attempts that have ended or run"`
	Input    string     `json:"input,omitempty" doc:"The file, line or number it reads, if it reads one"`
	Inputs   []string   `json:"inputs,omitempty" doc:"The files or items it reads, if it reads several"`
	Offset   uint64     `json:"offset,omitempty"`
	Length   uint64     `json:"length,omitempty"`
	Worker   uint64     `json:"worker,omitempty" doc:"Where it runs, or where the attempt ran that made its output"`
	Second   uint64     `json:"second_worker,omitempty" doc:"Where a second attempt runs beside the first one, which takes far longer than those of other tasks"`
	Overtook bool       `json:"second_won,omitempty" doc:"Its output is that of a second attempt, which has overtaken the first one; only of done tasks"`
	Started  *time.Time `json:"started,omitempty" doc:"When that attempt started; only of done tasks"`
	Seconds  *float64   `json:"seconds,omitempty" doc:"Run time of that attempt; only of done tasks"`
	Memory   uint64     `json:"peak_memory,omitempty" doc:"Bytes of the largest of its processes, if they exceed those of the process that contains it (about 25 MB); only of done tasks that are commands"`
	Read     uint64     `json:"read,omitempty" doc:"Bytes of the partition that it has read; only of done tasks of a stage that reduces"`
	Size     uint64     `json:"size,omitempty"`
	Records  uint64     `json:"records,omitempty"`
	Part     string     `json:"part,omitempty" doc:"Its output, when the job is done"`
	Retry    *time.Time `json:"retry,omitempty" doc:"When it may be run again, after a failure"`
	// Failures are the most recent, oldest first.
	Failures []Failure `json:"failures,omitempty"`
}

// Failure is one failed attempt.
type Failure struct {
	Attempt uint32    `json:"attempt"`
	Worker  uint64    `json:"worker"`
	Kind    string    `json:"kind" enum:"program_error,timeout,out_of_memory,lost_worker,preempted,bad_input,bad_program,output_error,lost_output"`
	Message string    `json:"message"`
	Time    time.Time `json:"time"`
	Seconds float64   `json:"seconds,omitempty" doc:"Run time, if it is known"`
	Stdout  string    `json:"stdout,omitempty" doc:"The end of what it wrote to standard output, if that was kept: in the answer for one task"`
}

// TaskList is a page of tasks in index order.
type TaskList struct {
	Tasks []Task `json:"tasks"`
	Next  string `json:"next,omitempty"`
}

// Worker statuses.
const (
	WorkerAlive    = "alive"
	WorkerDead     = "dead"
	WorkerDraining = "draining"
	WorkerIdle     = "idle" // not a member yet: it waits for an invitation
)

// Cluster statuses.
const (
	ClusterHealthy  = "healthy"
	ClusterDegraded = "degraded" // a worker is dead, or writes are refused
	ClusterDead     = "dead"     // no worker is alive
)

// Worker is one worker.
type Worker struct {
	ID       uint64            `json:"id" doc:"0: it waits for an invitation"`
	Identity string            `json:"identity"`
	Status   string            `json:"status" enum:"alive,dead,draining,idle"`
	Aside    bool              `json:"aside,omitempty" doc:"Quarantined: no attempt is leased to it for a while"`
	Cause    string            `json:"aside_cause,omitempty" enum:"failing,slow,flapping" doc:"Why it is quarantined: many different tasks failed on it, its attempts take far longer than those of other workers, or they were lost again and again because it was silent"`
	Host     string            `json:"host,omitempty"`
	Address  string            `json:"address,omitempty"`
	Version  string            `json:"version,omitempty"`
	Slots    uint32            `json:"slots"`
	Busy     uint32            `json:"busy" doc:"Slots that run an attempt"`
	Queued   uint32            `json:"queued" doc:"Attempts leased ahead of need"`
	Memory   uint64            `json:"memory,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Seen     time.Time         `json:"seen" doc:"Last heartbeat"`
	Claim    *uint64           `json:"claim,omitempty" doc:"Its id on the original system's routes, if that is not its number"`
	// SlotStatus is what each slot does, or how its last attempt has ended. Nil: not known.
	SlotStatus []string `json:"-"`

	Resources   []Resource `json:"resources,omitempty" doc:"For attempts, by name"`
	Confinement []string   `json:"confinement,omitempty" doc:"What it enforces for the commands of all jobs" example:"no new privileges"`
	// Only of a worker that is asked for by its number.
	Token string `json:"token,omitempty" doc:"Id of the token by which it joined, while others can join by it, too"`
}

// Resource is the countable things of one kind that a worker has.
type Resource struct {
	Name  string `json:"name"`
	Total uint64 `json:"total"`
	Used  uint64 `json:"used" doc:"That attempts have"`
}

// WorkerList is all workers, by number.
type WorkerList struct {
	Workers []Worker `json:"workers"`
}

// WorkerIDMax is the largest id of a worker on the original system's routes, where it is an Int.
const WorkerIDMax = 1<<31 - 1

// Words of Worker.SlotStatus.
const (
	SlotUnused  = "unused"
	SlotRunning = "running"
	SlotDone    = "done"
	SlotFailed  = "failed"
)

// Invitation is the body of POST /worker/invite on a worker: it makes an idle worker join a cluster.
type Invitation struct {
	Leaders     []string `json:"leaders" doc:"host:port, at least one"`
	ClusterID   string   `json:"cluster_id"`
	ClusterName string   `json:"cluster_name"`
	Claim       *uint64  `json:"claim,omitempty" doc:"Its id on the original system's routes, unless it has one of its own" maximum:"2147483647"`
}

// CertificateRequest is the request of a machine for a certificate of its key, which the certificate of its connection proves, or Request.
type CertificateRequest struct {
	Name    string `json:"name,omitempty" doc:"Name of a leader's data directory" maxLength:"64"`
	Request []byte `json:"request,omitempty" doc:"PKCS #10, in DER: of a machine whose connection has a certificate of an outside authority, the proof of its own key" maxLength:"4096"`
}

// Certificate is what a machine needs to be recognized by the others. Certificates are in DER.
type Certificate struct {
	Certificate []byte   `json:"certificate" doc:"Of the machine's key"`
	Authorities [][]byte `json:"authorities" doc:"The authorities of the cluster, whose certificates are accepted"`
	ClusterKey  []byte   `json:"cluster_key,omitempty" doc:"For leaders: the key of the cluster's secrets"`
}

// Authority is a certificate authority of the cluster.
type Authority struct {
	Number  uint64    `json:"number"`
	Expires time.Time `json:"expires"`
}

// Cluster is the cluster's health.
type Cluster struct {
	ID      string `json:"id" doc:"Distinguishes clusters of one name"`
	Name    string `json:"name" example:"bridgefour"`
	Status  string `json:"status" enum:"healthy,degraded,dead" doc:"degraded: a worker is dead, or not_ready is set; dead: no worker is alive"`
	Version string `json:"version"`
	Node    uint64 `json:"node" doc:"The leader that answers"`
	Leader  uint64 `json:"leader" doc:"The leader that leads; 0: unknown"`
	Leaders int    `json:"leaders" doc:"Number of leaders"`
	Term    uint64 `json:"term"`
	Index   uint64 `json:"index" doc:"Log position"`
	Workers int    `json:"workers"`
	Dead    int    `json:"dead_workers"`
	Slots   uint32 `json:"slots"`
	Free    uint32 `json:"free_slots"`
	Jobs    int    `json:"jobs" doc:"Unfinished jobs"`
	// Kept is the jobs of all users together; a user's own retention may keep fewer.
	Kept     KeptJobs `json:"kept"`
	Level    uint32   `json:"feature_level" doc:"Level of records that the leaders write. It rises once all of them can read it"`
	Spool    string   `json:"spool" doc:"Folder for the parts of jobs without an output"`
	NotReady string   `json:"not_ready,omitempty" doc:"Why writes are refused, if they are"`
	Insecure string   `json:"insecure,omitempty" doc:"What it means that the answering leader was started with --insecure, if it was"`
	// Encrypted clusters have a certificate authority.
	Encrypted bool `json:"encrypted,omitempty" doc:"Other machines reach the answering leader by TLS only"`
}

// Statuses of a leader.
const (
	LeaderLeads   = "leader"
	LeaderFollows = "follower"
	LeaderLearns  = "learner" // catching up, without a vote
	LeaderSilent  = "silent"  // not heard from for longer than an election takes
	LeaderUnknown = "unknown" // no leader, so the status is not known
)

// LeaderNode is one leader of the cluster.
type LeaderNode struct {
	ID      uint64     `json:"id"`
	Address string     `json:"address" doc:"host:port, for clients, workers and the other leaders"`
	Status  string     `json:"status" enum:"leader,follower,learner,silent,unknown"`
	Votes   bool       `json:"votes" doc:"Counts for the majority"`
	Self    bool       `json:"self,omitempty" doc:"The leader that answers"`
	Index   uint64     `json:"index" doc:"Last known log position"`
	Heard   *time.Time `json:"heard,omitempty" doc:"When the leader last heard from it"`
	Token   string     `json:"token,omitempty" doc:"Id of the token by which it joined, while others can join by it, too"`
}

// LeaderList is all leaders, by number.
type LeaderList struct {
	Cluster string       `json:"cluster"`
	Name    string       `json:"name"`
	Term    uint64       `json:"term"`
	Leaders []LeaderNode `json:"leaders"`
}

// LeaderRequest adds the fresh leader that listens at Address.
type LeaderRequest struct {
	Address string `json:"address" doc:"host:port" minLength:"1" maxLength:"260" example:"10.0.0.7:6550"`
}

// TokenRequest creates a token.
type TokenRequest struct {
	Role string `json:"role" enum:"read,submit,operator,admin,worker,leader"`
	User string `json:"user,omitempty" maxLength:"100" doc:"Whose jobs its holder submits; default: the user who creates it, and none for the role read. Not for workers and leaders" example:"ann"`
	TTL  string `json:"ttl,omitempty" example:"24h" doc:"How long it is valid; 0: until it is revoked; default: 24h for workers and leaders, else 2160h"`
}

// Token is what a cluster keeps of a token.
type Token struct {
	ID      string     `json:"id"`
	Role    string     `json:"role"`
	User    string     `json:"user,omitempty"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Expired bool       `json:"expired,omitempty" doc:"By the clock of the leader that answers"`
}

// BrowserLogin lets a browser in.
type BrowserLogin struct {
	URL string `json:"url" doc:"Works once, within a minute; the browser gets a cookie by which it is the client that has requested this, for up to 12 hours"`
}

// NewToken is a token and its secret, which is not shown again.
type NewToken struct {
	Token
	Join string `json:"join" doc:"For 'bridgefour login', 'worker --join' and 'leader --join'; what follows its last slash is for the header Authorization: Bearer"`
}

// TokenList is all tokens, oldest first.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

// Quota is what a user may use of the cluster.
type Quota struct {
	User string `json:"user" doc:"* stands for all users without a quota of their own"`
	QuotaRequest
}

// QuotaRequest is the bounds of a quota.
type QuotaRequest struct {
	Slots  uint32 `json:"slots,omitempty" doc:"That attempts of the user's jobs may occupy at one time; none: no bound" example:"16"`
	Jobs   uint32 `json:"jobs,omitempty" doc:"That have not ended; none: no bound"`
	Weight uint32 `json:"weight,omitempty" doc:"Of the user's fair share; none: 1" maximum:"1000"`
}

// QuotaList is all quotas, by user.
type QuotaList struct {
	Quotas []Quota `json:"quotas"`
}

// Retention bounds which jobs are kept after their end, with their results in the spool. A pinned job is kept, and does not count.
type Retention struct {
	User string `json:"user" doc:"* stands for the jobs of all users together"`
	RetentionRequest
}

// RetentionRequest is the bounds of a retention. The jobs that ended first go first.
type RetentionRequest struct {
	Jobs    uint32 `json:"keep_jobs,omitempty" maximum:"100000" doc:"Number of jobs; none: no bound, but 1,000 of all jobs together"`
	Seconds uint64 `json:"keep_seconds,omitempty" maximum:"3153600000" doc:"Time since their end; none: no bound"`
	Bytes   uint64 `json:"keep_bytes,omitempty" doc:"Size of their results in the spool, though one job is kept however large; none: no bound"`
}

// RetentionList is the retention of all jobs together, and those of users.
type RetentionList struct {
	Retentions []Retention `json:"retentions"`
}

// KeptJobs is the jobs that have ended and are not pinned, and what bounds them.
type KeptJobs struct {
	RetentionRequest
	Jobs   int        `json:"jobs"`
	Bytes  uint64     `json:"bytes" doc:"Of their results in the spool"`
	Pinned int        `json:"pinned" doc:"Jobs that are kept beside them, ended or not"`
	Next   uint64     `json:"next,omitempty" doc:"The job that goes next: the one that ended first"`
	Until  *time.Time `json:"until,omitempty" doc:"When it goes if no other bound is exceeded before"`
}

// Identity is who a request is from, as the leader knows it.
type Identity struct {
	User        string     `json:"user"`
	Role        string     `json:"role"`
	Token       string     `json:"token,omitempty" doc:"ID of the token; none, and no certificate: the kernel vouches for the user"`
	Certificate string     `json:"certificate,omitempty" doc:"Fingerprint of the key of the certificate, which an outside authority has issued"`
	Expires     *time.Time `json:"expires,omitempty"`
	Cluster     string     `json:"cluster" doc:"Name of the cluster"`
}

// Types of events.
const (
	EventJobSubmitted  = "job_submitted"
	EventStageStarted  = "stage_started"
	EventJobEnding     = "job_ending" // stopping or failing
	EventJobEnded      = "job_ended"
	EventJobForgotten  = "job_forgotten"
	EventTaskDied      = "task_died"
	EventWorkerJoined  = "worker_joined"
	EventWorkerChanged = "worker_changed"
	EventLockLost      = "lock_lost" // of a client that did not renew it in time
	EventAudited       = "audited"   // only for admins

	EventWorkerQuarantined = "worker_quarantined" // the detail says why, and for how long
	EventWorkerReleased    = "worker_released"    // from its quarantine
)

// Event is a committed fact. Every leader sends the same events in the same order with the same IDs.
type Event struct {
	Index  uint64    `json:"index" doc:"Log position"`
	Seq    uint32    `json:"seq" doc:"Number of the event at its log position, from 0"`
	Type   string    `json:"type" enum:"job_submitted,stage_started,job_ending,job_ended,job_forgotten,task_died,worker_joined,worker_changed,worker_quarantined,worker_released,lock_lost,audited"`
	Time   time.Time `json:"time"`
	Job    uint64    `json:"job,omitempty"`
	Stage  string    `json:"stage,omitempty"`
	Task   *uint64   `json:"task,omitempty" doc:"Index in its stage"`
	Worker uint64    `json:"worker,omitempty"`
	Status string    `json:"status,omitempty" doc:"Of the job or the worker, after the event"`
	Detail string    `json:"detail,omitempty" doc:"Description"`
	User   string    `json:"user,omitempty" doc:"Of lock_lost: the holder's"`
	Audit  *Audit    `json:"audit,omitempty" doc:"Of audited"`
}

// Audit is a request that changes something, or was refused.
type Audit struct {
	User    string `json:"user,omitempty"`
	Role    string `json:"role,omitempty"`
	Token   string `json:"token,omitempty" doc:"ID of the token, or fingerprint of the key of a certificate of an outside authority; none: the kernel, or a certificate of the cluster, vouches for the user"`
	Address string `json:"address,omitempty" doc:"Where it came from; none: a unix socket"`
	Action  string `json:"action" doc:"Method and path"`
	Verdict string `json:"verdict,omitempty" doc:"Why it was refused; none: it was done"`
	Subject string `json:"subject,omitempty" doc:"What was changed, if the action does not say it, such as which lock was released: its holder, user and fencing number"`
}

// Position is that of an event in the stream. The zero value is before all events.
type Position struct {
	Index uint64
	Seq   uint32
}

// Explanation is why a job or task is in its state.
type Explanation struct {
	Subject string   `json:"subject" doc:"N or N/STAGE/INDEX" example:"1"`
	Status  string   `json:"status" example:"halted"`
	Reasons []string `json:"reasons" doc:"Most important first" example:"no worker is alive"`
	Advice  []string `json:"advice,omitempty" doc:"Ways to fix it"`

	Lock *JobLock `json:"lock,omitempty" doc:"What it waits for"`

	Reservation *Reservation `json:"reservation,omitempty" doc:"The worker that is being emptied for the next task"`
}

// Reservation is a worker that is being emptied for a task that needs several slots, or memory.
type Reservation struct {
	Worker     uint64 `json:"worker"`
	Slots      int    `json:"slots" doc:"Needed at once"`
	SlotsFree  int    `json:"slots_free" doc:"Of these, free now"`
	Memory     uint64 `json:"memory,omitempty" doc:"Bytes needed"`
	MemoryFree uint64 `json:"memory_free,omitempty" doc:"Of these, free now"`
}

// LogRecord is a piece of an attempt's log. Streams of them are JSON lines.
type LogRecord struct {
	Task    string     `json:"task" doc:"JOB/STAGE/INDEX" example:"1/map/7"`
	Attempt uint32     `json:"attempt"`
	Worker  uint64     `json:"worker"`
	Lease   uint64     `json:"lease" doc:"Fencing number, unique to the attempt"`
	Winner  bool       `json:"winner,omitempty" doc:"This attempt's output was committed"`
	Time    *time.Time `json:"time,omitempty" doc:"When it was written, to about 10 ms, or the attempt ended; workers of earlier versions did not note it"`
	Text    []byte     `json:"text" doc:"base64"`
	Kept    bool       `json:"kept,omitempty" doc:"The leaders' copy of the last 64 KiB that a failed attempt wrote"`
	Output  bool       `json:"output,omitempty" doc:"Text is of standard output instead of the log"`
	Missing string     `json:"missing,omitempty" doc:"The answer is partial: why the logs of this worker are missing, and of which tasks. The record has no text"`
}

// LogText is a LogRecord with its text as it is.
type LogText struct {
	LogRecord

	Text   string `json:"text,omitempty" doc:"Whole lines, unless a line is long" example:"reading a.csv\\n"`
	Base64 []byte `json:"base64,omitempty" doc:"The text, if it is not UTF-8"`
}

// Problem is an RFC 9457 problem, and the error type of the API.
type Problem struct { //nolint:errname // RFC 9457's name
	Type   string         `json:"type,omitempty"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail,omitempty"`
	Errors []ProblemField `json:"errors,omitempty"`

	Lock *LockConflict `json:"lock,omitempty" doc:"Of a lock that was not granted"`

	// RetryAfter is the Retry-After of a 429, in seconds: the same request may be accepted then. 0: there is none.
	RetryAfter int `json:"-"`
}

// ProblemField is one invalid field.
type ProblemField struct {
	Message  string `json:"message,omitempty"`
	Location string `json:"location,omitempty"`
	Value    any    `json:"value,omitempty"`
}

// JobQuery selects a page of jobs, newest first.
type JobQuery struct {
	Status []string // any of these; none: all
	User   string   // whose jobs; empty: all
	Limit  int      // 1 to JobLimitMax
	Cursor string   // JobList.Next of the previous page
}

// TaskQuery selects a page of tasks in index order, stage by stage.
type TaskQuery struct {
	Stage  string // name; empty: all stages
	Status string // empty: all
	Limit  int    // 1 to TaskLimitMax
	Cursor string // TaskList.Next of the previous page
}

// KeyBytesMax is the longest Idempotency-Key of a submission.
const KeyBytesMax = 200

// Page limits.
const (
	JobLimitMax  = 1000
	TaskLimitMax = 10_000
)

// LogQuery selects the logs of one task, or of all tasks of a job.
type LogQuery struct {
	Job     uint64
	OneTask bool // that of Stage and Index
	Stage   string
	Index   uint64
	Follow  bool // continue until the job has ended

	Failed bool      // of tasks that have failed only
	Since  time.Time // only what was written since then, as far as that is known; zero: all
	Tail   int       // only so many lines of each attempt, the last of those that are there; 0: all. It is for package client
}

// SlowestMax bounds the list of the slowest tasks of a job.
const SlowestMax = 1000

// Times are the run times of the done tasks of a job, in seconds. Percentiles are exact to a sixtieth.
type Times struct {
	Tasks    uint64  `json:"tasks" doc:"Done tasks of which the time is known"`
	Shortest float64 `json:"shortest"`
	P50      float64 `json:"p50" doc:"Median"`
	P90      float64 `json:"p90"`
	P99      float64 `json:"p99"`
	Longest  float64 `json:"longest"`
	Total    float64 `json:"total"`
	Memory   uint64  `json:"peak_memory,omitempty" doc:"Bytes of the largest process of a command; 0: unknown"`
	Slowest  []Task  `json:"slowest" doc:"The slowest first"`
	// Stages are those that map or reduce, in their order.
	Stages []StageTimes `json:"stages"`
}

// StageTimes are the run times of the done tasks of a stage, in seconds, and what they have read and written.
type StageTimes struct {
	Stage   string  `json:"stage" example:"reduce"`
	Tasks   uint64  `json:"tasks" doc:"Done tasks"`
	P50     float64 `json:"p50" doc:"Median"`
	Longest float64 `json:"longest"`
	Slowest string  `json:"slowest,omitempty" doc:"The task that took longest" example:"1/reduce/3"`
	Total   float64 `json:"total"`
	Read    uint64  `json:"read" doc:"Bytes, decompressed, of the input or of partitions"`
	Written uint64  `json:"written" doc:"Bytes of outputs: of the parts, or of what the next stage reads, compressed"`
	Records uint64  `json:"records" doc:"Records written"`
	// Only of a stage that reduces.
	ReadP50    uint64 `json:"read_p50,omitempty" doc:"Bytes of the median partition"`
	ReadMost   uint64 `json:"read_most,omitempty" doc:"Bytes of the largest partition"`
	ReadMostOf string `json:"read_most_of,omitempty" doc:"The task of the largest partition" example:"1/reduce/3"`
}

// PartQuery selects the outputs of a job's tasks, and where to continue.
type PartQuery struct {
	Job       uint64
	Unordered bool   // as tasks finish; otherwise in task order
	Inputs    bool   // with Part.Input
	Sums      bool   // with Part.Sum and, in the end, Part.Final
	Task      uint64 // the first one; if unordered, earlier ones follow it
	Offset    uint64 // in the output of Task
}

// Part is a piece of a task's output. In a stream it is a line of JSON, followed by its bytes.
type Part struct {
	Task   uint64 `json:"task" doc:"Index in its stage"`
	Offset uint64 `json:"offset,omitempty" doc:"In the output of the task"`
	Bytes  int    `json:"bytes"`
	Input  string `json:"input,omitempty" doc:"The file, line or number that the task reads, if it reads one; in its first piece, if requested"`
	Sum    uint64 `json:"sum,omitempty" doc:"The checksum of the whole output, if requested"`
	Final  bool   `json:"final,omitempty" doc:"No piece: after the pieces of a job that is done, if sums are requested, the sum of the output that counts, for each task that has run more than once; it has none if it wrote nothing. If pieces came with another sum, the output was made again since"`
	Text   []byte `json:"-"`
}

// Consensus is a leader's view of the election.
type Consensus struct {
	ID            uint64     `json:"id"`
	Term          uint64     `json:"term"`
	Role          string     `json:"role" enum:"Leader,Follower,Candidate"`
	VotedFor      *uint64    `json:"voted_for,omitempty"`
	Leader        *uint64    `json:"leader,omitempty"`
	LastElection  *time.Time `json:"last_election,omitempty"`
	LastHeartbeat *time.Time `json:"last_heartbeat,omitempty"`
	Peers         []Peer     `json:"peers"`
}

// Peer is another leader.
type Peer struct {
	ID   uint64 `json:"id"`
	Host string `json:"host"`
	Port int    `json:"port"`
}

// Manifest is _SUCCESS: what makes an output complete.
type Manifest struct {
	UID     string    `json:"uid" doc:"Unique to the job, across clusters"`
	Job     uint64    `json:"job"`
	Name    string    `json:"name,omitempty"`
	User    string    `json:"user,omitempty"`
	Fence   uint64    `json:"fence,omitempty" doc:"Number of the lock on the output, under which it was published"`
	Cluster string    `json:"cluster,omitempty" doc:"ID of the cluster, which has given the number"`
	Program Program   `json:"program"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Result  string    `json:"result,omitempty" doc:"File of the collected result"`
	// NameParts is the pattern of the names of the parts; empty: part-NNNNN.
	NameParts string         `json:"name_parts,omitempty"`
	Parts     []ManifestPart `json:"parts"`
	// Missing tasks, of a partial output only.
	Missing []uint64 `json:"missing,omitempty"`
}

// ManifestPart is one part.
type ManifestPart struct {
	Part    string `json:"part"`
	Size    uint64 `json:"size"`
	Records uint64 `json:"records"`
	XXH64   string `json:"xxh64" doc:"16 hex digits"`
	Input   string `json:"input,omitempty" doc:"The file or item that the task read, if it read one; the beginning, if it is long"`
	// Inputs are those of a task that read several, about 1 KiB of them; InputsMore counts the others.
	Inputs     []string `json:"inputs,omitempty"`
	InputsMore uint64   `json:"inputs_more,omitempty"`
	Offset     uint64   `json:"offset,omitempty" doc:"Position in the file"`
	Length     uint64   `json:"length,omitempty" doc:"Bytes of the file"`
}
