package state

import (
	"iter"
	"maps"
	"math"
	"math/bits"
	"slices"
)

// CommitAction is what the commit stage does with the output folder. The numbers are those of the wire.
type CommitAction uint8

// The actions of a commit stage.
const (
	_             CommitAction = iota
	Commit                     // publish every part, then _SUCCESS
	CommitPartial              // publish what is done, then _PARTIAL
	Abort                      // leave nothing
)

// TaskStatus is the status of a task in the log. Which open tasks run is volatile state of the leader.
type TaskStatus uint8

// The statuses of a task.
const (
	TaskOpen TaskStatus = iota
	TaskDone
	TaskDead
)

func (s TaskStatus) String() string {
	return nameOf(s, "status", "open", "done", "dead")
}

// TaskEvent is what can happen to a task.
type TaskEvent uint8

// The events of a task.
const (
	AttemptDone   TaskEvent = iota // an attempt's output was prepared
	AttemptFailed                  // an attempt failed and the budget has room
	BudgetSpent                    // an attempt failed and the budget of its kind is spent
	TaskRetried                    // a user retried the job
	OutputLost                     // the winner's output can no longer be read
)

func (e TaskEvent) String() string {
	return nameOf(e, "event", "attempt done", "attempt failed", "budget spent", "task retried", "output lost")
}

// Next is the transition table of a task; ok is false if the event changes nothing: a second winner, or a report on a task that is
// dead.
func (s TaskStatus) Next(e TaskEvent) (next TaskStatus, ok bool) {
	switch s {
	case TaskOpen:
		switch e {
		case AttemptDone:
			return TaskDone, true
		case AttemptFailed:
			return TaskOpen, true
		case BudgetSpent:
			return TaskDead, true
		case TaskRetried, OutputLost:
		}
	case TaskDead:
		if e == TaskRetried {
			return TaskOpen, true
		}
	case TaskDone:
		if e == OutputLost {
			return TaskOpen, true
		}
	}
	return s, false
}

// pageTasks is the number of tasks in a page, the unit of copying after a snapshot: small, so that an entry whose tasks are far
// apart copies little (BenchmarkStall). Snapshots are written page by page: it cannot change.
const pageTasks = 256

// page holds the columns of pageTasks tasks: 9 bytes a task, 24 more if tasks have output, 12 more if they are done, 2 more if those were
// commands, 8 more if they reduce, 13 more if they have failed. A page is allocated when the first of its tasks is done or fails, so a new job of ten million tasks takes no memory.
type page struct {
	// Epochs of the page itself, out, run, peaks, reads, second and failures. A column of an older epoch than the machine's is shared with a snapshot: copy
	// before writing.
	epoch, outEpoch, runEpoch, peaksEpoch, readsEpoch, secondEpoch, failuresEpoch uint64

	status   [pageTasks]TaskStatus
	winner   [pageTasks]Lease // of an open task: the lease whose output was lost, if one was
	out      *outputs         // nil while no task of the page has written a byte; of an open task: what was lost, from feature level 2
	run      *runs            // nil while no task of the page was done at feature level 1
	peaks    *peaks           // nil while no task of the page that is done has told how much memory it has used
	reads    *reads           // nil unless the page is of a stage that reduces, and a task of it is done
	second   *marks           // of the tasks that a second attempt has done; nil: none of the page
	failures *failureColumns  // nil while no task of the page has failed
}

// pageGroup is neighbouring pages: it bounds what a snapshot of a stage of billions of tasks copies.
type pageGroup struct {
	epoch uint64 // see page
	pages [groupPages]*page
}

const (
	groupPages = 64
	groupTasks = groupPages * pageTasks
)

// outputs are the columns of the outputs of tasks.
type outputs struct {
	size, records, checksum [pageTasks]uint64
}

// runs are the columns of Run.
type runs struct {
	worker, started, millis [pageTasks]uint32
}

// marks are a bit for each task.
type marks [pageTasks / 64]uint64

// set sets the bit of task k of the page.
func (m *marks) set(k uint64, on bool) {
	m[k/64] &^= 1 << (k % 64)
	if on {
		m[k/64] |= 1 << (k % 64)
	}
}

// reads are the column of Output.Read.
type reads [pageTasks]uint64

// peaks are the column of Run.PeakKiB.
type peaks [pageTasks]peak

// peak is a number of KiB with eleven significant bits, after five bits for the number of bits that were cut off.
type peak uint16

const peakBits = 11

func newPeak(kib uint32) peak {
	cut := max(0, bits.Len32(kib)-peakBits)
	return peak(cut<<peakBits | int(kib>>cut))
}

func (p peak) kib() uint32 { return uint32(p&(1<<peakBits-1)) << (p >> peakBits) }

// failureColumns are the columns of failures.
type failureColumns struct {
	counts [pageTasks][failureKinds]uint8
	ended  [pageTasks]uint32
}

// Output is the output of the winning attempt of a task.
type Output struct {
	Winner                  Lease
	Size, Records, Checksum uint64
	Read                    uint64 // bytes of the partition that a task of a stage that reduces has read; else 0
	Second                  bool   // see Completion
	Run
}

// Run is where and when the winning attempt ran. It is zero if the task was done at feature level 0.
type Run struct {
	Worker  WorkerID
	Started uint32 // ms after the job was created; sticks at the largest number
	Millis  uint32 // run time; likewise
	PeakKiB uint32 // largest memory of one of its processes, to three digits; 0: unknown
}

// Failures are the failures of a task.
type Failures struct {
	Counts [failureKinds]uint8 // failures by kind since the task was last retried, lost outputs since the job was; sticks at 255
	Ended  uint32              // attempts that have failed, or whose output was lost
	Last   []Failure           // the latest, oldest first; kept only for the first tasks of a stage that fail
}

const (
	failuresKept    = 3    // per task
	failedTasksKept = 1000 // tasks of a stage whose failures are kept with their messages
	messageMax      = 4096 // bytes of a failure's message
)

// Stage is one stage of a job. Tasks - Done - Dead tasks are open; some of them run.
type Stage struct {
	StageSpec

	Action CommitAction // of a commit stage
	Done   uint64
	Dead   uint64
	Failed uint64 // attempts that have failed, or whose output was lost
	Second uint64 // done tasks whose output is that of a second attempt
	// Fence voids the leases of the stage up to this one: outputs that their attempts may have read have been lost since.
	Fence Lease
	// A closed stage accepts no more completions although tasks are open: the job needed one success, or there is nothing to check.
	Closed bool
	// More tasks come: see Input.Growing.
	growing bool
	// groups are indexed by task/groupTasks. The tasks of a group or page that is absent are open and have never failed.
	groups []*pageGroup
	failed map[uint64][]Failure // Failures.Last, of at most failedTasksKept tasks
	// failedEpoch is to failed what page.epoch is to a page.
	failedEpoch uint64
}

// newStage returns a stage of which no task has run. The action of a commit stage is Commit.
func newStage(spec *StageSpec) *Stage {
	s := &Stage{StageSpec: *spec}
	if s.Role == RoleCommit {
		s.Action = Commit
	}
	return s
}

// page returns the page of task i, or nil.
func (s *Stage) page(i uint64) *page {
	if n := i / groupTasks; n < uint64(len(s.groups)) && s.groups[n] != nil {
		return s.groups[n].pages[i/pageTasks%groupPages]
	}
	return nil
}

// all yields the pages and their numbers. The loop's body may make them writable.
func (s *Stage) all() iter.Seq2[uint64, *page] {
	return func(yield func(uint64, *page) bool) {
		for n, c := range s.groups {
			if c == nil {
				continue
			}
			for k, p := range c.pages {
				if p != nil && !yield(uint64(n)*groupPages+uint64(k), p) {
					return
				}
			}
		}
	}
}

// settled reports whether no task of the stage has to run.
func (s *Stage) settled() bool { return s.Closed || s.Done+s.Dead == s.Tasks && !s.growing }

// complete reports whether the stage has all the outputs that it will have.
func (s *Stage) complete() bool { return s.Closed || s.Done == s.Tasks && !s.growing }

// Status returns the status of task i.
func (s *Stage) Status(i uint64) TaskStatus {
	p := s.page(i)
	if p == nil {
		return TaskOpen
	}
	return p.status[i%pageTasks]
}

// Output returns the output of task i; ok is false if it is not done.
func (s *Stage) Output(i uint64) (out Output, ok bool) {
	p := s.page(i)
	if p == nil || p.status[i%pageTasks] != TaskDone {
		return Output{}, false
	}
	k := i % pageTasks
	out.Winner = p.winner[k]
	if p.out != nil {
		out.Size, out.Records, out.Checksum = p.out.size[k], p.out.records[k], p.out.checksum[k]
	}
	if p.run != nil {
		out.Run = Run{Worker: WorkerID(p.run.worker[k]), Started: p.run.started[k], Millis: p.run.millis[k]}
	}
	if p.peaks != nil {
		out.PeakKiB = p.peaks[k].kib()
	}
	if p.reads != nil {
		out.Read = p.reads[k]
	}
	if p.second != nil {
		out.Second = p.second[k/64]>>(k%64)&1 == 1
	}
	return out, true
}

// Failures returns the failures of task i. The slice belongs to the machine: do not change it.
func (s *Stage) Failures(i uint64) Failures {
	p := s.page(i)
	if p == nil || p.failures == nil {
		return Failures{}
	}
	k := i % pageTasks
	return Failures{Counts: p.failures.counts[k], Ended: p.failures.ended[k], Last: s.failed[i]}
}

// FailedTasks yields the tasks at or after from that have failed, or lost an output, at least once, in order.
func (s *Stage) FailedTasks(from uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for n, p := range s.all() {
			if p.failures == nil || (n+1)*pageTasks <= from {
				continue
			}
			for k, ended := range p.failures.ended {
				if i := n*pageTasks + uint64(k); ended > 0 && i >= from && !yield(i) {
					return
				}
			}
		}
	}
}

// DoneTasks yields the done tasks at or after from, in order.
func (s *Stage) DoneTasks(from uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for n, p := range s.all() {
			if (n+1)*pageTasks <= from {
				continue
			}
			for k, status := range p.status {
				if i := n*pageTasks + uint64(k); status == TaskDone && i >= from && !yield(i) {
					return
				}
			}
		}
	}
}

// Attempt is the number of the next attempt of task i.
func (s *Stage) Attempt(i uint64) uint32 {
	if p := s.page(i); p != nil && p.failures != nil {
		return p.failures.ended[i%pageTasks] + 1
	}
	return 1
}

// writable returns the page of task i for writing to its own columns.
func (s *Stage) writable(i, epoch uint64) *page {
	n := i / groupTasks
	if short := n + 1 - min(n+1, uint64(len(s.groups))); short > 0 {
		s.groups = append(s.groups, make([]*pageGroup, short)...)
	}
	switch old := s.groups[n]; {
	case old == nil:
		s.groups[n] = &pageGroup{epoch: epoch}
	case old.epoch != epoch:
		c := *old
		c.epoch = epoch
		s.groups[n] = &c
	}
	p := &s.groups[n].pages[i/pageTasks%groupPages]
	switch old := *p; {
	case old == nil:
		*p = &page{epoch: epoch}
	case old.epoch != epoch:
		c := *old
		c.epoch = epoch
		*p = &c
	}
	return *p
}

// writableColumns returns columns of a page for writing: new ones, or a copy if those of epoch at are shared with a snapshot.
func writableColumns[T any](columns **T, at *uint64, epoch uint64) *T {
	switch {
	case *columns == nil:
		*columns = new(T)
	case *at != epoch:
		*columns = new(**columns)
	}
	*at = epoch
	return *columns
}

// finish records the winner of task c.Index. It has not won if the task is not open or the lease is void. Other is true if an output of the task was lost,
// and this one may be another. The run is recorded if worker is not 0.
func (s *Stage) finish(c *Completion, worker WorkerID, level uint32, epoch uint64) (won, other bool) {
	if s.Closed || c.Index >= s.Tasks {
		return false, false
	}
	k, status, lost := c.Index%pageTasks, TaskOpen, Lease(0) // lost: see page.winner
	if p := s.page(c.Index); p != nil {
		status, lost = p.status[k], p.winner[k]
	}
	next, ok := status.Next(AttemptDone)
	if !ok || lost != 0 && c.Lease <= lost {
		return false, false
	}
	p := s.writable(c.Index, epoch)
	if lost != 0 {
		var size, checksum uint64
		if p.out != nil {
			size, checksum = p.out.size[k], p.out.checksum[k]
		}
		other = size != c.Size || size > 0 && checksum != c.Checksum
	}
	p.status[k], p.winner[k] = next, c.Lease
	if c.Size > 0 || c.Records > 0 || lost != 0 && p.out != nil {
		out := writableColumns(&p.out, &p.outEpoch, epoch)
		out.size[k], out.records[k], out.checksum[k] = c.Size, c.Records, c.Checksum
	}
	if worker != 0 && worker <= math.MaxUint32 {
		run := writableColumns(&p.run, &p.runEpoch, epoch)
		run.worker[k], run.started[k], run.millis[k] = uint32(worker), c.Started, c.Millis
	}
	if c.PeakKiB != 0 {
		writableColumns(&p.peaks, &p.peaksEpoch, epoch)[k] = newPeak(c.PeakKiB)
	}
	if s.Role == RoleReduce && c.InputBytes != 0 && level >= 2 {
		writableColumns(&p.reads, &p.readsEpoch, epoch)[k] = c.InputBytes
	}
	if c.Second && level >= 2 {
		writableColumns(&p.second, &p.secondEpoch, epoch).set(k, true)
		s.Second++
	}
	s.Done++
	return true, other
}

// fail records a failed attempt of task i, and reports whether the task is dead now; ok is false if the failure does not count.
func (s *Stage) fail(i uint64, f Failure, retries uint32, epoch uint64) (dead, ok bool) {
	if s.Closed || i >= s.Tasks || s.Status(i) != TaskOpen || s.lost(i, f.Lease) {
		return false, false
	}
	return s.charge(i, f, retries, epoch), true
}

// charge adds a failure to the budget of the open task i, and reports whether the task is dead now.
func (s *Stage) charge(i uint64, f Failure, retries uint32, epoch uint64) (dead bool) {
	p, k := s.writable(i, epoch), i%pageTasks
	failures := writableColumns(&p.failures, &p.failuresEpoch, epoch)
	count := &failures.counts[k][f.Kind]
	if *count < math.MaxUint8 {
		*count++
	}
	failures.ended[k]++
	f.Attempt = failures.ended[k]
	s.keepMessage(i, f, epoch)
	s.Failed++
	event := AttemptFailed
	if n, limited := budget(f.Kind, retries); f.Cancel || limited && uint32(*count) > n {
		event = BudgetSpent
	}
	p.status[k], _ = TaskOpen.Next(event)
	if p.status[k] == TaskDead {
		s.Dead++
	}
	return p.status[k] == TaskDead
}

// lost reports whether a lease of the open task i is void because its output, or that of a later lease, was lost.
func (s *Stage) lost(i uint64, lease Lease) bool {
	p := s.page(i)
	return p != nil && p.winner[i%pageTasks] != 0 && lease <= p.winner[i%pageTasks]
}

// lose opens task i again if lease is its winner, and returns the lost output. If the size and the checksum are kept, finish compares with them.
func (s *Stage) lose(i uint64, lease Lease, keep bool, epoch uint64) (gone Output, ok bool) {
	if i >= s.Tasks {
		return Output{}, false
	}
	gone, ok = s.Output(i)
	if !ok || gone.Winner != lease {
		return Output{}, false
	}
	p, k := s.writable(i, epoch), i%pageTasks
	p.status[k], _ = TaskDone.Next(OutputLost)
	if p.out != nil && !keep {
		out := writableColumns(&p.out, &p.outEpoch, epoch)
		out.size[k], out.records[k], out.checksum[k] = 0, 0, 0
	}
	if p.run != nil {
		run := writableColumns(&p.run, &p.runEpoch, epoch)
		run.worker[k], run.started[k], run.millis[k] = 0, 0, 0
	}
	if p.peaks != nil {
		writableColumns(&p.peaks, &p.peaksEpoch, epoch)[k] = 0
	}
	if p.reads != nil {
		writableColumns(&p.reads, &p.readsEpoch, epoch)[k] = 0
	}
	if gone.Second {
		writableColumns(&p.second, &p.secondEpoch, epoch).set(k, false)
		s.Second--
	}
	s.Done--
	s.Closed = false
	return gone, true
}

// void counts an attempt of task i that has come to nothing, though the task is not charged.
func (s *Stage) void(i, epoch uint64) {
	p := s.writable(i, epoch)
	writableColumns(&p.failures, &p.failuresEpoch, epoch).ended[i%pageTasks]++
	s.Failed++
}

// keepMessage keeps f with its message, unless too many tasks have failed.
func (s *Stage) keepMessage(i uint64, f Failure, epoch uint64) {
	last, known := s.failed[i]
	if !known && len(s.failed) >= failedTasksKept {
		return
	}
	switch {
	case s.failed == nil:
		s.failed = map[uint64][]Failure{}
	case s.failedEpoch != epoch:
		s.failed = maps.Clone(s.failed)
	}
	s.failedEpoch = epoch
	if len(last) == failuresKept {
		last = last[1:]
	}
	s.failed[i] = append(slices.Clone(last), f) // a snapshot may still read the old slice
}

// reopen opens the dead tasks again and resets their budgets; every task has a new budget of lost outputs, because what damaged the outputs damaged those of
// many tasks. Attempt numbers continue. A closed stage needs no more tasks, unless it loses an output.
func (s *Stage) reopen(epoch uint64) {
	for n, p := range s.all() {
		if p.failures == nil { // so no task of the page is dead
			continue
		}
		for k, status := range p.status {
			next, dead := status.Next(TaskRetried)
			dead = dead && !s.Closed
			if !dead && p.failures.counts[k][LostOutput] == 0 {
				continue
			}
			p := s.writable(n*pageTasks+uint64(k), epoch)
			counts := &writableColumns(&p.failures, &p.failuresEpoch, epoch).counts[k]
			counts[LostOutput] = 0
			if dead {
				p.status[k], *counts = next, [failureKinds]uint8{}
				s.Dead--
			}
		}
	}
}

// clone returns a copy that shares the pages and the failures.
func (s *Stage) clone() *Stage {
	c := *s
	c.groups = slices.Clone(s.groups)
	return &c
}
