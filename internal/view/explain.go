package view

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Bounds of what an explanation names.
const (
	explainTasks   = 5 // failed tasks of a stage
	explainWorkers = 5 // that cannot run the tasks
	explainJobs    = 5 // that are scheduled first
	explainLocks   = 5 // requests that a job waits for
)

// Explain explains the status of a job or of one of its tasks, with advice.
func (r *Reader) Explain(ctx context.Context, id uint64, stage string, index uint64) (api.Explanation, error) {
	if stage != "" {
		task, err := r.Task(ctx, id, stage, index)
		if err != nil {
			return api.Explanation{}, err
		}
		job, err := r.Explain(ctx, id, "", 0)
		if err != nil {
			return api.Explanation{}, err
		}
		return explainTask(&task, &job), nil
	}
	var e *explainer
	if err := r.scan(ctx, id, func(job *state.Job, m *state.Machine, c *leader.Core) {
		e = &explainer{machine: m, core: c, job: job, out: api.Explanation{Subject: fmt.Sprint(id)}}
		e.now = time.Now()
		e.explain(e.now)
	}); err != nil {
		return api.Explanation{}, err
	}
	if why := r.source.WritesRefused(); why != "" {
		e.because("the leader refuses writes: %s", why)
	}
	return e.out, nil
}

// explainer collects the explanation of one job, in the goroutine that owns the state.
type explainer struct {
	machine *state.Machine
	core    *leader.Core
	job     *state.Job
	now     time.Time
	running map[leader.TaskPlace]leader.Place // see leased
	out     api.Explanation
}

func (e *explainer) because(format string, args ...any) {
	e.out.Reasons = append(e.out.Reasons, fmt.Sprintf(format, args...))
}

func (e *explainer) advise(format string, args ...any) {
	e.out.Advice = append(e.out.Advice, fmt.Sprintf(format, args...))
}

func (e *explainer) explain(now time.Time) {
	e.out.Status = jobStatus(e.job, e.core)
	defer e.skew()
	defer e.kept()
	switch e.job.Status {
	case state.JobDone:
		e.done()
	case state.JobStopped:
		e.stopped()
	case state.JobWaiting:
		e.others()
	case state.JobFailed:
		if e.job.Blocker != 0 {
			e.blocked()
			return
		}
		e.failed()
	case state.JobStopping, state.JobFailing:
		e.because("it is ending: its output folder is being cleaned up")
		e.waiting(now)
	case state.JobActive:
		e.growing()
		for i, stage := range e.job.Stages {
			if e.job.Ready(i) {
				leased := e.core.StageLeased(e.job.ID, uint32(i))
				e.because("stage %s: %d of %s done, %d leased to workers, %d dead", stage.Name, stage.Done, state.Counted(stage.Tasks, "task"), leased, stage.Dead)
			}
		}
		e.waiting(now)
		e.second()
		for i, stage := range e.job.Stages {
			if e.job.Ready(i) {
				e.failures(stage)
			}
		}
	}
}

// done explains the end of a job that has succeeded.
func (e *explainer) done() {
	switch tasks, done := e.job.TaskCounts(); {
	case done < tasks: // only with --first-success
		e.because("%d of %s succeeded: one is enough, the others were not needed; the output is in %s", done, state.Counted(tasks, "task"), e.job.Spec.Output)
	case tasks == 1:
		e.because("its task is done; the output is in %s", e.job.Spec.Output)
	default:
		e.because("all %d tasks are done; the output is in %s", tasks, e.job.Spec.Output)
	}
}

// failed explains which tasks of a failed job are dead, or else why it was not run, and what would run it.
func (e *explainer) failed() {
	dead, kept := false, false
	for _, stage := range e.job.Stages {
		kept = kept || stage.Done > 0
		if stage.Dead > 0 {
			dead = true
			rest := ""
			if open := stage.Tasks - stage.Done - stage.Dead; open > 0 {
				by := "its program has stopped the job"
				if most := e.job.Spec.MaxFails; most != nil && !strings.HasPrefix(e.job.Error, "stopped by its program: ") {
					by = "of --max-fails " + most.String()
				}
				rest = fmt.Sprintf(", %d not run to their end because %s", open, by)
			}
			e.because("stage %s: %d of %s dead%s", stage.Name, stage.Dead, state.Counted(stage.Tasks, "task"), rest)
			e.failures(stage)
		}
	}
	if !dead && e.job.Error != "" {
		e.because("%s", e.job.Error)
	}
	switch {
	case !dead && e.machine.Overtaken(e.job) != 0:
		e.advise("submit it again with --overwrite, or with another --output: a retry would be refused in the same way")
	case kept:
		e.advise("fix the cause, then: bridgefour retry %d (done tasks are kept)", e.job.ID)
	default:
		e.advise("fix the cause, then: bridgefour retry %d", e.job.ID)
	}
	if dead || kept {
		e.advise("bridgefour stop %d removes the kept output", e.job.ID)
	}
}

// skew names the partitions with many times what others have: a key with many records is in one.
func (e *explainer) skew() {
	const much, least = 4, 1 << 20 // times the median; bytes
	for i, stage := range e.job.Stages {
		if stage.Role != state.RoleReduce || stage.Done < stage.Tasks/2 || stage.Done < 3 {
			continue
		}
		var reads []uint64
		var total, most, hot uint64
		for task := range stage.DoneTasks(0) {
			out, _ := stage.Output(task)
			if out.Read > most {
				most, hot = out.Read, task
			}
			total += out.Read
			reads = append(reads, out.Read)
		}
		middle := max(1, median(reads))
		if most >= least && most/middle >= much {
			e.because("partition %d of stage %s has %s of %s, %d times as much as the median: it may have a key with many records", hot, stage.Name,
				humanize.IBytes(most), humanize.IBytes(total), most/middle)
			e.advise("more partitions do not divide a key; --combine shortens its records before they are moved")
		}
		if e.job.Ready(i) && stage.Done >= stage.Tasks-stage.Tasks/4 {
			e.late(uint32(i), stage) //nolint:gosec // few
		}
	}
}

// leased is where the tasks of the job are leased to. All leases are looked at for it, once.
func (e *explainer) leased() map[leader.TaskPlace]leader.Place {
	if e.running == nil {
		e.running = e.core.Running(e.job.ID)
	}
	return e.running
}

// late names tasks of a stage that run while nearly all others are done.
func (e *explainer) late(number uint32, stage *state.Stage) {
	var tasks []uint64
	for place := range e.leased() {
		if place.Stage == number {
			tasks = append(tasks, place.Task)
		}
	}
	slices.Sort(tasks)
	for _, task := range tasks[:min(len(tasks), explainTasks)] {
		e.because("partition %d of stage %s is still read, when %d of %s are done: if it runs much longer than the others, it has a key with many records", task, stage.Name,
			stage.Done, state.Counted(stage.Tasks, "partition"))
	}
}

// second explains which tasks run twice.
func (e *explainer) second() {
	running := e.leased()
	twice := slices.DeleteFunc(slices.Collect(maps.Keys(running)), func(at leader.TaskPlace) bool { return running[at].Second == 0 })
	order := func(a, b leader.TaskPlace) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Task, b.Task))
	}
	slices.SortFunc(twice, order)
	for i, at := range twice {
		if i == explainTasks {
			e.because("and %s twice", verbCounted(uint64(len(twice)-i), "more task", "runs", "run"))
			return
		}
		e.because("task %d/%s/%d takes far longer than others on worker %d, so it runs on worker %d too: the first output counts", e.job.ID, e.job.Spec.Stages[at.Stage].Name,
			at.Task, running[at].Worker, running[at].Second)
	}
}

// growing explains that a job gets more tasks.
func (e *explainer) growing() {
	if e.job.Growing() {
		e.because("its input is still coming, and with it more tasks")
	}
}

// others explains which jobs a job waits for.
func (e *explainer) others() {
	named, more := 0, uint64(0)
	for _, d := range e.job.Spec.After {
		if !e.machine.Pending(d) {
			continue
		}
		if named++; named > explainJobs {
			more++
			continue
		}
		other, how := e.machine.Job(d.Job), "be done"
		if d.Any {
			how = "end"
		}
		tasks, done := other.TaskCounts()
		e.because("it waits for job %d (%s) to %s, which is %s: %d of %s done", d.Job, other.Spec.Name, how, jobStatus(other, e.core), done, state.Counted(tasks, "task"))
		if other.Status == state.JobWaiting {
			e.advise("bridgefour explain %d tells what that one waits for", d.Job)
		}
	}
	if more > 0 {
		e.because("and for %s more", state.Counted(more, "job"))
	}
	if e.machine.InputDue(e.job) {
		e.because("the leader lists its input, which other jobs have written")
	}
	e.locks()
}

// stopped explains what runs a stopped job again.
func (e *explainer) stopped() {
	e.because("it was stopped")
	if blocker := e.machine.Blocker(e.job); blocker != nil {
		e.advise("bridgefour retry %d first: this one comes after it", blocker.ID)
	}
	e.advise("bridgefour retry %d runs it again from the start", e.job.ID)
}

// blocked explains because of which job a job was not run.
func (e *explainer) blocked() {
	e.because("%s", e.job.Error)
	if blocker := e.machine.Blocker(e.job); blocker != nil {
		e.advise("bridgefour explain %d tells why; bridgefour retry %d runs that one again, and then this one", blocker.ID, blocker.ID)
	} else {
		e.advise("bridgefour retry %d runs it", e.job.ID)
	}
}

// waiting explains why open tasks are not leased.
func (e *explainer) waiting(now time.Time) {
	demand, own := e.demand()
	if own == 0 {
		return
	}
	if e.core.Held(e.job.ID) {
		e.because("the leader has just started and waits up to %v for workers that may still be running its tasks", leader.LossAfter)
		return
	}
	if n, first := e.core.Waiting(e.job.ID); n > 0 && first.After(now) {
		e.because("%s tried again later, the first in %v: %s", verbCounted(uint64(n), "failed task", "is", "are"), first.Sub(now).Round(10*time.Millisecond), e.delay())
	}
	if e.pace(now) {
		return
	}
	e.reservation()
	e.quota()
	e.workers()
	if others := len(demand.Jobs) - 1; others > 0 {
		e.because("tasks that wait for a slot: %d of this job, and %d of %s that can use the same workers", own, demand.Tasks-own, state.Counted(uint64(others), "other job"))
	}
	first := 0
	for _, id := range e.machine.Live() {
		other := e.machine.Job(id)
		if other.Spec.Priority <= e.job.Spec.Priority || e.core.Leased(id) == 0 {
			continue
		}
		if first++; first <= explainJobs {
			e.because("job %d is scheduled first: its priority is %d, this job's is %d", id, other.Spec.Priority, e.job.Spec.Priority)
		}
	}
	if first > explainJobs {
		e.because("and %s more of higher priority", state.Counted(uint64(first-explainJobs), "job"))
	}
	if first > 0 {
		e.advise("submit with a higher --priority")
	}
}

// pace explains what the pace of the job holds back, and reports whether it does.
func (e *explainer) pace(now time.Time) bool {
	pace, spec := e.core.Pace(e.job.ID), e.job.Spec
	wait := pace.Until.Sub(now)
	switch {
	case pace.Full:
		e.because("%s running, and no more may run at one time (--max-running %d)", verbCounted(e.core.Leased(e.job.ID), "task", "is", "are"), spec.MaxRunning)
	case wait > 0:
		e.because("the next task may start in %v: %v must pass between two starts (--delay)", wait.Round(10*time.Millisecond), time.Duration(spec.DelayMS)*time.Millisecond) //nolint:gosec // bounded at the submit
	default:
		return false
	}
	return true
}

// reservation explains which worker is being emptied for the next task.
func (e *explainer) reservation() {
	r, ok := e.core.Reservation(e.job.ID)
	if !ok {
		return
	}
	e.out.Reservation = &api.Reservation{
		Worker: uint64(r.Worker), Slots: r.Slots, SlotsFree: r.SlotsFree, Memory: r.Memory, MemoryFree: r.MemoryFree,
	}
	need, free := needed(e.job.Spec), fmt.Sprintf("%d of %s free", r.SlotsFree, state.Counted(uint64(r.Slots), "slot"))
	if r.Memory > 0 {
		free += fmt.Sprintf(", %s of %s of memory", humanize.IBytes(r.MemoryFree), humanize.IBytes(r.Memory))
	}
	parts := []string{free}
	for i, f := range r.Free {
		parts = append(parts, fmt.Sprintf("%d of %d %s", f.N, r.Resources[i].N, f.Name))
	}
	e.because("its next task needs %s; worker %d is being emptied for it, %s", need, r.Worker, strings.Join(parts, ", "))
}

// quota explains which quota holds the job back.
func (e *explainer) quota() {
	user, slots := e.job.Spec.User, int(max(1, e.job.Spec.SlotsPerTask))
	q := e.core.Quota(user)
	most := int(q.Slots)
	switch {
	case most == 0 || e.out.Reservation != nil || q.Used+slots <= most:
		return
	case slots > most:
		e.because("user %s: each task of the job needs %d slots, and the quota is %d; the job waits until the quota is raised", user, slots, most)
		e.advise("submit with a smaller --slots-per-task, or let an administrator raise the quota: bridgefour quota set %s --slots N", user)
		return
	case slots > 1:
		e.because("user %s has %d of %s of the quota in use, and each task of the job needs %d", user, q.Used, state.Counted(uint64(most), "slot"), slots) //nolint:gosec // positive
	default:
		e.because("user %s has %d of %s of the quota in use", user, q.Used, state.Counted(uint64(most), "slot")) //nolint:gosec // positive
	}
	e.advise("wait until tasks of the user's jobs have ended, or let an administrator raise the quota: bridgefour quota set %s --slots N", user)
}

// needed describes what an attempt needs at once.
func needed(spec *state.Spec) string {
	need := state.Counted(uint64(max(1, spec.SlotsPerTask)), "slot")
	if spec.SlotsPerTask > 1 {
		need += " at once"
	}
	if spec.Memory > 0 {
		need += fmt.Sprintf(" and %s of memory", humanize.IBytes(spec.Memory))
	}
	parts := []string{need}
	for _, r := range spec.Resources {
		parts = append(parts, fmt.Sprintf("%d %s", r.N, r.Name))
	}
	return strings.Join(parts, " and ")
}

// demand returns the demand for the workers that the job needs, and the job's part of it.
func (e *explainer) demand() (all leader.Demand, own uint64) {
	for _, d := range e.core.Demand() {
		for _, j := range d.Jobs {
			if j.Job == e.job.ID {
				return d, j.Tasks
			}
		}
	}
	return leader.Demand{}, 0
}

// workers explains which workers cannot run the job's tasks.
func (e *explainer) workers() {
	able, busy, unable := 0, 0, 0
	because := func(format string, args ...any) {
		if unable++; unable <= explainWorkers {
			e.because(format, args...)
		}
	}
	slots := max(1, e.job.Spec.SlotsPerTask)
	most := uint32(0)                         // slots of a worker
	own, hasJob := e.job.Spec.OwnJob(), false // hasJob: a worker that is connected has it
	for _, id := range e.machine.Workers() {
		w, known := e.core.WorkerState(id)
		if !known {
			continue
		}
		info := e.machine.Worker(id)
		most = max(most, info.Slots)
		hasJob = hasJob || w.Connected && state.HasLabel(info.Labels, state.LabelJobs, e.job.Spec.Labels[state.LabelJobs], own)
		switch {
		case !w.Connected:
			because("worker %d is not connected", id)
		case w.Draining:
			because("worker %d is draining", id)
		case w.Quarantined == leader.Slow:
			because("worker %d is quarantined: its attempts take %d times as long as those of other workers, or longer", id, leader.SlowFactor)
		case w.Quarantined == leader.Flapping:
			because("worker %d is quarantined: its attempts were lost again and again, because it was silent for %v or longer", id, leader.LossAfter)
		case w.Quarantined == leader.Failing:
			because("worker %d is quarantined: many different tasks failed on it", id)
		case !e.core.Fits(id, e.job.Spec):
			because("worker %d does not fit: %s", id, strings.Join(lacks(e.job.Spec, info), "; "))
		default:
			able++
			if info.Slots-w.Busy < slots {
				busy++
			}
		}
	}
	if unable > explainWorkers {
		e.because("and %s cannot run its tasks", state.Counted(uint64(unable-explainWorkers), "other worker"))
	}
	switch {
	case able == 0 && most > 0 && most < slots:
		e.because("no worker has %d slots, which each of its tasks needs: the largest has %d; the job waits until one has", slots, most)
		e.advise("start a worker that fits: bridgefour worker --leader ADDR%s; or submit with a smaller --slots-per-task", fitting(e.job.Spec))
	case able == 0 && own != "" && !hasJob:
		e.because("no live worker has job %q; it waits until one does", own)
		e.advise("start a worker of the program that the job is of: PROGRAM worker --leader ADDR%s", fitting(e.job.Spec))
	case able == 0:
		e.because("no live worker can run its tasks; the job waits until one can")
		e.advise("start a worker that fits: bridgefour worker --leader ADDR%s", fitting(e.job.Spec))
	case busy == able:
		e.busy(able, slots)
	}
}

// busy explains that the workers which can run the job's tasks have too few free slots.
func (e *explainer) busy(able int, slots uint32) {
	switch {
	case slots > 1:
		e.because("no worker has %d free slots, of %d that can run its tasks", slots, able)
	case able == 1:
		e.because("all slots of the only worker that can run its tasks are busy")
	default:
		e.because("all slots of the %d workers that can run its tasks are busy", able)
	}
	e.advise("wait, or start more workers")
}

// lacks lists what a worker that does not fit a job lacks.
func lacks(spec *state.Spec, w *state.Worker) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(spec.Labels)) {
		switch v := spec.Labels[k]; {
		case state.HasLabel(w.Labels, k, v, spec.OwnJob()):
		case k == state.LabelJobs && spec.OwnJob() != "":
			list = append(list, fmt.Sprintf("its program has no job %q", spec.OwnJob()))
		default:
			list = append(list, fmt.Sprintf("it has no label %s=%s", k, v))
		}
	}
	if spec.SlotsPerTask > w.Slots {
		list = append(list, fmt.Sprintf("an attempt needs %s, it has %d", state.Counted(uint64(spec.SlotsPerTask), "slot"), w.Slots))
	}
	if w.Memory > 0 && spec.Memory > w.Memory {
		list = append(list, fmt.Sprintf("an attempt needs %s of memory, it has %s", humanize.IBytes(spec.Memory), humanize.IBytes(w.Memory)))
	}
	for _, r := range spec.Resources {
		if at := slices.IndexFunc(w.Resources, func(has state.Resource) bool { return has.Name == r.Name }); at < 0 {
			list = append(list, fmt.Sprintf("an attempt needs %d %s, it has none", r.N, r.Name))
		} else if has := w.Resources[at].N; has < r.N {
			list = append(list, fmt.Sprintf("an attempt needs %d %s, it has %d", r.N, r.Name, has))
		}
	}
	if len(list) == 0 && spec.Protocol() > 1 {
		list = append(list, fmt.Sprintf("its version, %s, is too old for it: upgrade it", w.Version))
	}
	return list
}

// fitting returns the flags that a worker needs to run a job's tasks.
func fitting(spec *state.Spec) string {
	var flags strings.Builder
	if spec.SlotsPerTask > 1 {
		fmt.Fprintf(&flags, " --slots %d", spec.SlotsPerTask)
	}
	for _, r := range spec.Resources {
		fmt.Fprintf(&flags, " --resource %s=%d", r.Name, r.N)
	}
	for _, k := range slices.Sorted(maps.Keys(spec.Labels)) {
		if k == state.LabelJobs { // a worker has it by itself
			continue
		}
		fmt.Fprintf(&flags, " --label %s=%s", k, spec.Labels[k])
	}
	return flags.String()
}

// failures names the first failed tasks of a stage, dead ones first. It visits a bounded number of tasks.
func (e *explainer) failures(stage *state.Stage) {
	first := [...][]uint64{state.TaskOpen: nil, state.TaskDone: nil, state.TaskDead: nil} // by status
	visited, more := 0, ""
	for task := range stage.FailedTasks(0) {
		if visited == scanMax {
			more = "more than "
			break
		}
		visited++
		if status := stage.Status(task); len(first[status]) < explainTasks {
			first[status] = append(first[status], task)
		}
	}
	named := slices.Concat(first[state.TaskDead], first[state.TaskDone], first[state.TaskOpen])
	named = named[:min(len(named), explainTasks)]
	lost := 0 // times that one task that has not succeeded since lost its worker
	for _, task := range named {
		t := stage.Failures(task)
		if len(t.Last) == 0 {
			continue
		}
		last := t.Last[len(t.Last)-1]
		if stage.Status(task) != state.TaskDone && last.Kind == state.LostWorker {
			lost = max(lost, int(t.Counts[state.LostWorker]))
		}
		e.because("task %d/%s/%d failed %s; last on worker %d: %v: %s", e.job.ID, stage.Name, task, state.Counted(uint64(t.Ended), "time"), last.Worker, last.Kind,
			strings.TrimSpace(last.Message))
	}
	if lost > 1 {
		e.advise("find out why one task has lost its worker %d times: a program that exits, panics in a goroutine of its own, or takes all memory ends the "+
			"worker of its own jobs, whose standard error tells; a worker without heartbeats hangs, or its network does", lost)
	}
	if others := visited - len(named); others > 0 {
		e.because("and %s%s failed at least once", more, verbCounted(uint64(others), "more task", "has", "have"))
		e.advise("bridgefour tasks %d --status dead lists them", e.job.ID)
	}
}

// verbCounted is [state.Counted] with a verb, in the singular and in the plural.
func verbCounted(n uint64, noun, one, many string) string {
	if n == 1 {
		return state.Counted(n, noun) + " " + one
	}
	return state.Counted(n, noun) + " " + many
}

// delay says how long failed tasks wait.
func (e *explainer) delay() string {
	delay := "the delay grows with each failure of a task"
	if ms := e.job.Spec.RetryDelayMS; ms > 0 {
		delay = fmt.Sprintf("the delay of %v (retry_delay) doubles with each failure of a task", time.Duration(ms)*time.Millisecond) //nolint:gosec // bounded by the plan
	}
	return delay + ", and a random part spreads tasks that have failed together"
}

// explainTask explains a task, from its public form and the explanation of its job.
func explainTask(t *api.Task, job *api.Explanation) api.Explanation {
	out := api.Explanation{Subject: t.Name, Status: t.Status}
	switch t.Status {
	case api.TaskRunning:
		out.Reasons = append(out.Reasons, fmt.Sprintf("attempt %d is leased to worker %d", t.Attempts, t.Worker))
	case api.TaskDone:
		out.Reasons = append(out.Reasons, fmt.Sprintf("its output (%s) is committed, after %s", humanize.IBytes(t.Size), state.Counted(uint64(t.Attempts), "attempt")))
		if t.Overtook {
			out.Reasons = append(out.Reasons, "the last one was a second attempt, started while the one before took far longer than those of other tasks, and has overtaken it")
		}
	case api.TaskDead:
		out.Reasons = append(out.Reasons, "it is dead, after "+state.Counted(uint64(t.Attempts), "attempt"))
		out.Advice = append(out.Advice, "fix the cause, then retry the job", "bridgefour logs "+t.Name+" shows its log")
	case api.TaskOpen:
		if t.Retry != nil {
			out.Reasons = append(out.Reasons, fmt.Sprintf("it has failed, and is tried again in %v; a random part of the delay spreads tasks that have failed together",
				max(0, time.Until(*t.Retry)).Round(10*time.Millisecond)))
			break
		}
		out.Reasons = append(out.Reasons, "it waits for a slot")
		out.Reasons = append(out.Reasons, job.Reasons...)
		out.Advice = append(out.Advice, job.Advice...)
		out.Reservation = job.Reservation
	}
	for _, f := range t.Failures {
		out.Reasons = append(out.Reasons, fmt.Sprintf("attempt %d failed on worker %d: %s: %s", f.Attempt, f.Worker, f.Kind, strings.TrimSpace(f.Message)))
	}
	return out
}
