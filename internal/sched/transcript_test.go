package sched

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transcript"
)

// TestTranscripts plays testdata/*.txt. A file is a story of blocks: commands, a line "----", and what the scheduler
// answered; an empty line ends a block. `go test -update` rewrites the answers.
//
//	worker W slots=N [memory=N] [gpu=N] [label=V]       a worker, or a change of it
//	job J tasks=N [files=S,S,…] [user=U] [prio=N] [slots=N] [memory=N] [label=V] [first_success] [retries=N] [held] [delay=D] [running=N] [gpu=N]
//	at DURATION                                 since the beginning
//	next W …                                    until each has nothing more: prints the grants
//	once W …                                    one grant each
//	done J W TASK… [micros=N]                   these leases ended well, in N microseconds each; the tasks are done
//	back J W TASK…                              these leases came back
//	fail J W TASK after=DURATION                this attempt failed: the task may go again after DURATION
//	pause J                                     as a new leader does
//	adopt J W TASK…   release   freeze J yes|no   end J   leave W   restart J
//	lost J TASK…                                the outputs of these tasks are lost; the stage goes on with them
//	quota U [slots=N] [weight=N]                sets the quota of a user
//	demand                                      what waits
//	                                            J is the first stage of a job; J/N, which a job does not start with, is another
//	alone W yes|no
//	behind W yes|no
//	show                                        load and leases of all workers and jobs; wake
func TestTranscripts(t *testing.T) {
	transcript.Run(t, "testdata", func(t *testing.T) func([][]string) string {
		t.Helper()
		return newStory(t).block
	})
}

// story is the state of one transcript.
type story struct {
	t       *testing.T
	now     time.Time
	s       *Scheduler
	machine *state.Machine
	users   map[string]bool // with a quota
	jobs    map[string]*state.Job
	workers map[string]*Worker
	costs   map[string]int64 // by "job worker task"
	lease   state.Lease      // the last one that won
}

var epoch = time.UnixMilli(0)

func newStory(t *testing.T) *story {
	t.Helper()
	st := &story{
		t: t, now: epoch, s: New(), machine: state.New(), users: map[string]bool{}, jobs: map[string]*state.Job{}, workers: map[string]*Worker{}, costs: map[string]int64{},
	}
	if err := st.machine.Apply(1, state.RaiseLevel(1, state.FeatureLevel, "test").Data(), &state.Result{}); err != nil {
		t.Fatal(err)
	}
	return st
}

func (st *story) block(commands [][]string) string {
	var b strings.Builder
	for _, words := range commands {
		st.command(&b, words)
	}
	return b.String()
}

func (st *story) number(s string) uint64 {
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		st.t.Fatal(err)
	}
	return n
}

func (st *story) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		st.t.Fatal(err)
	}
	return d
}

func (st *story) command(b *strings.Builder, words []string) {
	list, set := transcript.Options(words[1:])
	switch words[0] {
	case "worker":
		w := st.workers[list[0]]
		if w == nil {
			w = &Worker{ID: state.WorkerID(len(st.workers) + 1)}
			st.workers[list[0]] = w
		}
		w.Slots, w.Memory, w.Labels = int(st.number(set["slots"])), st.number(set["memory"]), labels(set)
		w.Resources = state.Resources(map[string]int{"gpu": int(st.number(set["gpu"]))})
	case "job":
		st.job(list, set)
	case "at":
		st.now = epoch.Add(st.duration(list[0]))
	case "next", "once":
		for _, name := range list {
			st.next(b, name, words[0] == "once")
		}
	case "done", "back", "fail":
		st.ended(words[0], list[0], list[1], list[2:], set)
	case "adopt":
		for _, task := range list[2:] {
			_, key := st.stage(list[0])
			st.costs[strings.Join([]string{list[0], list[1], task}, " ")] = st.s.Adopt(st.now, st.workers[list[1]], key, st.number(task))
		}
	case "lost":
		job, key := st.stage(list[0])
		for _, task := range list[1:] {
			lost := st.number(task)
			out, _ := job.Stages[key.Stage].Output(lost)
			st.apply(func(e *state.Entry) { e.OutputLost(job.ID, key.Stage, lost, out.Winner, 1, "gone") })
			st.s.Resume(job, key.Stage, lost, st.now)
		}
	case "pause":
		st.s.Pause(st.jobs[list[0]].ID, st.now)
	case "demand":
		for _, d := range st.s.Demand() {
			fmt.Fprintf(b, "%d tasks want %d slots, %d bytes, %v: %v\n", d.Tasks, d.Slots, d.Memory, d.Labels, d.Jobs)
		}
	case "quota":
		st.users[list[0]] = true
		st.apply(func(e *state.Entry) {
			e.SetQuota("", state.Quota{User: list[0], Slots: uint32(st.number(set["slots"])), Weight: uint32(st.number(set["weight"]))})
		})
		st.s.SetQuotas(st.machine.Access().Quotas())
	case "release":
		st.s.Release()
	case "freeze":
		st.s.Freeze(st.jobs[list[0]].ID, list[1] == "yes")
	case "end":
		if job, key := st.stage(list[0]); strings.Contains(list[0], "/") {
			st.s.EndStage(key)
		} else {
			st.s.End(job.ID)
		}
	case "restart":
		job, key := st.stage(list[0])
		st.s.Start(job, key.Stage, false)
	case "leave":
		st.s.Leave(st.workers[list[0]])
	case "alone":
		st.workers[list[0]].Alone = list[1] == "yes"
	case "behind":
		st.workers[list[0]].Behind = list[1] == "yes"
	case "show":
		st.show(b)
	default:
		st.t.Fatalf("unknown command %q", words)
	}
}

func labels(set map[string]string) map[string]string {
	if set["label"] == "" {
		return nil
	}
	return map[string]string{"label": set["label"]}
}

func (st *story) job(list []string, set map[string]string) {
	spec := &state.Spec{
		Name: list[0], User: set["user"], Output: "/" + list[0], Priority: uint32(st.number(set["prio"])), Retries: 9,
		SlotsPerTask: uint32(st.number(set["slots"])), Memory: st.number(set["memory"]), Labels: labels(set),
		FirstSuccess: slices.Contains(list, "first_success"),
	}
	if set["delay"] != "" {
		spec.DelayMS = uint64(st.duration(set["delay"]).Milliseconds())
	}
	spec.MaxRunning = uint32(st.number(set["running"]))
	spec.Resources = state.Resources(map[string]int{"gpu": int(st.number(set["gpu"]))})
	if set["files"] != "" {
		files := state.NewFiles(st.number(set["split"]))
		for i, size := range strings.Split(set["files"], ",") {
			files.AddFile(fmt.Appendf(nil, "file%d", i), state.Version{Size: st.number(size)}, false)
		}
		spec.Input, _ = files.Input()
	} else {
		spec.Input, _ = state.RangeInput(1, int64(st.number(set["tasks"])))
	}
	st.apply(func(e *state.Entry) { e.Submit("", list[0], spec.User, spec) })
	ids := st.machine.Jobs()
	st.jobs[list[0]] = st.machine.Job(ids[len(ids)-1])
	st.s.Start(st.jobs[list[0]], 0, slices.Contains(list, "held"))
}

// stage finds J, the first stage of a job, or J/N.
func (st *story) stage(name string) (*state.Job, Key) {
	name, number, _ := strings.Cut(name, "/")
	job := st.jobs[name]
	return job, Key{job.ID, uint32(st.number(number))}
}

func (st *story) apply(add func(e *state.Entry)) {
	e := state.NewEntry(1, state.FeatureLevel)
	add(e)
	if err := st.machine.Apply(st.machine.Index()+1, e.Data(), &state.Result{}); err != nil {
		st.t.Fatal(err)
	}
}

func (st *story) next(b *strings.Builder, name string, once bool) {
	w := st.workers[name]
	for {
		g, ok := st.s.Next(st.now, w)
		if !ok {
			if once {
				fmt.Fprintf(b, "%s: nothing\n", name)
			}
			return
		}
		stage := g.Job.Spec.Name
		if g.Stage > 0 {
			stage = fmt.Sprintf("%s/%d", stage, g.Stage)
		}
		for _, task := range g.Tasks {
			st.costs[strings.Join([]string{stage, name, fmt.Sprint(task)}, " ")] = g.Cost
		}
		fmt.Fprintf(b, "%s: %s %s", name, stage, span(g.Tasks))
		if g.Cost != Slot {
			fmt.Fprintf(b, ", %d/%d slot each", g.Cost, Slot)
		}
		b.WriteString("\n")
		if once {
			return
		}
	}
}

// span prints tasks, neighbours together.
func span(tasks []uint64) string {
	var words []string
	for i := 0; i < len(tasks); {
		k := i + 1
		for k < len(tasks) && tasks[k] == tasks[k-1]+1 {
			k++
		}
		if k-i > 2 {
			words = append(words, fmt.Sprintf("%d-%d", tasks[i], tasks[k-1]))
		} else {
			words = append(words, strings.Trim(fmt.Sprint(tasks[i:k]), "[]"))
		}
		i = k
	}
	return strings.Join(words, " ")
}

func (st *story) ended(how, job, worker string, tasks []string, set map[string]string) {
	j, key := st.stage(job)
	w := st.workers[worker]
	for _, name := range tasks {
		lease := strings.Join([]string{job, worker, name}, " ")
		cost, leased := st.costs[lease]
		if !leased {
			st.t.Fatalf("%s is not leased", lease)
		}
		delete(st.costs, lease)
		task := st.number(name)
		st.s.Return(w, j, key.Stage, 1, cost)
		switch how {
		case "done":
			st.s.Observe(key, 1, st.number(set["micros"]))
			st.lease++
			st.apply(func(e *state.Entry) {
				e.Done(w.ID, j.ID, key.Stage, []state.Completion{{Index: task, Lease: st.lease}})
			})
		case "fail":
			st.apply(func(e *state.Entry) {
				e.Failed(j.ID, key.Stage, task, state.Failure{Kind: state.ProgramError, Worker: w.ID}, nil)
			})
			st.s.Reopen(key, task, st.now.Add(st.duration(set["after"])), w.ID, false)
		case "back":
			st.s.Reopen(key, task, st.now, 0, false)
		}
	}
}

func (st *story) show(b *strings.Builder) {
	for _, name := range sortedKeys(st.workers) {
		w := st.workers[name]
		fmt.Fprintf(b, "worker %s: %d leases, load %.2f", name, w.Leases(), float64(w.load)/Slot)
		for _, r := range w.Resources {
			fmt.Fprintf(b, ", %d of %d %s", w.used[r.Name], r.N, r.Name)
		}
		b.WriteByte('\n')
	}
	for _, name := range sortedKeys(st.jobs) {
		id := st.jobs[name].ID
		if r, ok := st.s.Reservation(id); ok {
			fmt.Fprintf(b, "worker %d is being emptied for job %s: %d of %d slots, %d of %d bytes are free", r.Worker, name, r.SlotsFree, r.Slots, r.MemoryFree, r.Memory)
			for i, f := range r.Free {
				fmt.Fprintf(b, ", %d of %d %s", f.N, r.Resources[i].N, f.Name)
			}
			b.WriteByte('\n')
		}
		n, first := st.s.Waiting(id)
		fmt.Fprintf(b, "job %s: %d leased", name, st.s.Leased(id))
		if n > 0 {
			fmt.Fprintf(b, ", %d wait, the first until %v", n, first.Sub(epoch))
		}
		p := st.s.Pace(id)
		if p.Full {
			b.WriteString(", no more may run")
		}
		if !p.Until.IsZero() {
			fmt.Fprintf(b, ", pauses until %v", p.Until.Sub(epoch))
		}
		if st.s.Held(id) {
			b.WriteString(", held back")
		}
		b.WriteString("\n")
	}
	for _, name := range sortedKeys(st.users) {
		use := st.s.Use(name)
		fmt.Fprintf(b, "user %s: %d of %d slots\n", name, use.Used, use.Slots)
	}
	if st.s.Freed() {
		b.WriteString("a quota or pace holds back less\n")
	}
	if at, ok := st.s.Wake(); ok {
		fmt.Fprintf(b, "wake at %v\n", at.Sub(epoch))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
