package state

// entryVersion is the first byte of every log entry; entries of an unknown version are refused, never guessed at.
const entryVersion = 1

// Command kinds as the log has them; never renumber.
const (
	cmdSubmit = iota + 1
	cmdStop
	cmdRetry
	cmdForget
	cmdDone
	cmdFailed
	cmdRegister
	cmdWorker
)

// Entry builds a log entry: a batch of commands that are applied in order. Its time is the proposing leader's clock; the
// machine never lets time go back.
type Entry struct {
	enc encoder
	// Items counts what was added, tasks one by one.
	Items int
	// Fence is the last lease that the leader has given. It goes into each Stop and Retry: what was leased before them is
	// void for the job, also to a later leader that finds a worker still at it.
	Fence Lease
	// Fenced are the jobs of its Stops and Retries. The leader gives no lease of these until the log has the entry: it would be
	// one of before, and not be void.
	Fenced []JobID
}

// NewEntry starts an entry at time now, in Unix milliseconds.
func NewEntry(now int64) *Entry {
	e := &Entry{enc: encoder{buf: make([]byte, 0, 512)}}
	e.enc.buf = append(e.enc.buf, entryVersion)
	e.enc.int(now)
	return e
}

// Data is the entry's encoding.
func (e *Entry) Data() []byte { return e.enc.buf }

// Size is the length of Data, in bytes.
func (e *Entry) Size() int { return len(e.enc.buf) }

// Submit adds a job. Key makes it idempotent: a second submit with the same key answers with the first one's job, for a day.
// An empty key is no key. UID names the job's private folder and must be new.
func (e *Entry) Submit(key, uid string, spec *Spec) {
	e.Items++
	e.enc.uint(cmdSubmit)
	e.enc.string(key)
	e.enc.string(uid)
	e.enc.spec(spec)
}

// Stop ends a job early.
func (e *Entry) Stop(key string, job JobID) {
	e.Fenced = append(e.Fenced, job)
	e.jobCommand(cmdStop, key, job)
}

// Retry opens what failed of an ended job again.
func (e *Entry) Retry(key string, job JobID) {
	e.Fenced = append(e.Fenced, job)
	e.jobCommand(cmdRetry, key, job)
}

// Forget drops an ended job from the state.
func (e *Entry) Forget(key string, job JobID) { e.jobCommand(cmdForget, key, job) }

func (e *Entry) jobCommand(kind uint64, key string, job JobID) {
	e.Items++
	e.enc.uint(kind)
	e.enc.string(key)
	e.enc.uint(uint64(job))
	e.enc.uint(uint64(e.Fence))
}

// Completion is one prepared attempt.
type Completion struct {
	Index      uint64
	Lease      Lease
	Size       uint64 // bytes of output
	Records    uint64
	Checksum   uint64 // xxh64; only kept where Size > 0
	InputBytes uint64
}

// Done adds the completions of one worker in one stage. Neighbouring tasks of neighbouring leases take five bytes each.
func (e *Entry) Done(worker WorkerID, job JobID, stage uint32, list []Completion) {
	e.Items += len(list)
	e.enc.uint(cmdDone)
	e.enc.uint(uint64(worker))
	e.enc.uint(uint64(job))
	e.enc.uint(uint64(stage))
	e.enc.completions(list)
}

// Failed adds one failed attempt. Its Attempt number and Time are given by the machine. A kind that the log does not know
// counts as a program error, and a long message is cut: one odd worker must not stop or fill the leaders.
func (e *Entry) Failed(job JobID, stage uint32, index uint64, f Failure) {
	e.Items++
	if f.Kind == 0 || f.Kind >= failureKinds {
		f.Kind = ProgramError
	}
	f.Message = f.Message[:min(len(f.Message), messageMax)]
	e.enc.uint(cmdFailed)
	e.enc.uint(uint64(job))
	e.enc.uint(uint64(stage))
	e.enc.uint(index)
	e.enc.failure(f)
}

// Register makes a worker known, or brings a known one back.
func (e *Entry) Register(key string, w *WorkerInfo) {
	e.Items++
	e.enc.uint(cmdRegister)
	e.enc.string(key)
	e.enc.workerInfo(w)
}

// SetWorker changes a worker's status.
func (e *Entry) SetWorker(key string, id WorkerID, status WorkerStatus) {
	e.Items++
	e.enc.uint(cmdWorker)
	e.enc.string(key)
	e.enc.uint(uint64(id))
	e.enc.uint(uint64(status))
}
