package state

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// model is the state machine once more, written from the documentation with no care for speed: a struct per task, every
// attempt remembered, every figure added up anew when it is asked for. The random tests compare the machine with it.
type model struct {
	time    int64
	jobs    map[JobID]*modelJob
	keys    map[string]modelKey
	made    JobID
	workers map[WorkerID]*Worker
	joined  WorkerID

	facts   []string // all of them
	answers []string // what the requests of the last entry were told
	wins    []bool   // the verdicts of the last entry
}

type modelJob struct {
	id                      JobID
	uid                     string
	spec                    *Spec
	status                  string
	stages                  []*modelStage
	current                 int
	created, started, ended int64
	err                     string
	over                    bool
}

type modelStage struct {
	kind, action string
	tasks        []*modelTask
	closed       bool
	failedTasks  int // how many tasks have failed at least once
}

type modelTask struct {
	status   string
	won      Completion
	failures []Failure           // all of them
	counts   map[FailureKind]int // since the last retry
	kept     bool                // its failures may be shown
}

type modelKey struct {
	job  JobID
	text string // the request
	time int64
}

func newModel() *model {
	return &model{jobs: map[JobID]*modelJob{}, keys: map[string]modelKey{}, workers: map[WorkerID]*Worker{}}
}

func newModelStage(kind, action string, tasks uint64) *modelStage {
	s := &modelStage{kind: kind, action: action}
	for range tasks {
		s.tasks = append(s.tasks, &modelTask{status: "open", counts: make(map[FailureKind]int)})
	}
	return s
}

func modelStages(spec *Spec) []*modelStage {
	stages := []*modelStage{newModelStage("map", "", max(1, spec.Input.Tasks))}
	if spec.Collect {
		stages = append(stages, newModelStage("collect", "", 1))
	}
	if !spec.Spool {
		stages = append(stages, newModelStage("commit", "publish", 1))
	}
	return stages
}

// begin starts an entry at time now.
func (m *model) begin(now int64) {
	m.time = max(m.time, now)
	m.answers, m.wins = nil, nil
	for key, k := range m.keys {
		if m.time-k.time > 24*3600*1000 {
			delete(m.keys, key)
		}
	}
}

// tell adds a fact: about a job, one of its stages or tasks, or about a worker.
func (m *model) tell(kind, about, status, detail string) {
	m.facts = append(m.facts, fmt.Sprintf("at %d: %s %s, %s, %q", m.time, kind, about, status, detail))
}

func (m *model) tellJob(kind string, j *modelJob, detail string) {
	m.tell(kind, fmt.Sprintf("job %d", j.id), j.status, detail)
}

func (m *model) tellStage(j *modelJob) {
	m.tell("stage", fmt.Sprintf("job %d %s", j.id, j.stages[j.current].kind), j.status, "")
}

func (m *model) answer(key, format string, args ...any) {
	m.answers = append(m.answers, key+" "+fmt.Sprintf(format, args...))
}

// specText is what the user asked for; the folder in the spool is the leader's.
func specText(spec *Spec) string {
	s := *spec
	if s.Spool {
		s.Output = "spool"
	}
	return fmt.Sprintf("%+v", s)
}

func (m *model) submit(key, uid string, spec *Spec) {
	if k, ok := m.keys[key]; ok && key != "" {
		if k.text == specText(spec) {
			m.answer(key, "job %d", k.job)
		} else {
			m.answer(key, "refused")
		}
		return
	}
	if m.conflict(spec.Output, 0) {
		m.answer(key, "refused")
		return
	}
	m.made++
	m.jobs[m.made] = &modelJob{id: m.made, uid: uid, spec: spec, status: "active", stages: modelStages(spec), created: m.time}
	m.keys[key] = modelKey{job: m.made, text: specText(spec), time: m.time}
	m.tellJob("submitted", m.jobs[m.made], spec.Name)
	m.tellStage(m.jobs[m.made])
	m.answer(key, "job %d", m.made)
}

// conflict reports whether a job that is not over, or one that came after job after and is done, writes at, in or around output.
func (m *model) conflict(output string, after JobID) bool {
	for _, j := range m.jobs {
		later := after > 0 && j.id > after && j.status == "done"
		if j.id == after || j.over && !later {
			continue
		}
		for _, pair := range [][2]string{{output, j.spec.Output}, {j.spec.Output, output}} {
			if rel, err := filepath.Rel(pair[0], pair[1]); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
				return true
			}
		}
	}
	return false
}

// commit is the commit stage's number, or -1.
func (j *modelJob) commit() int {
	for i, s := range j.stages {
		if s.kind == "commit" {
			return i
		}
	}
	return -1
}

func (m *model) end(j *modelJob, status string) {
	j.status, j.over, j.ended = status, true, m.time
	if status == "done" {
		j.err = ""
	}
	m.tellJob("ended", j, j.err)
}

// wind ends a job early: by its commit stage where there is something for it to do, or at once.
func (m *model) wind(j *modelJob) {
	action := "abort"
	if j.spec.KeepPartial {
		action = "partial"
	}
	commit := j.commit()
	if commit < 0 || j.status == "failing" && action == "abort" {
		m.end(j, map[string]string{"failing": "failed", "stopping": "stopped"}[j.status])
		return
	}
	j.stages[commit], j.current = newModelStage("commit", action, 1), commit
	m.tellStage(j)
}

func (m *model) stop(key string, id JobID) {
	j := m.jobs[id]
	switch {
	case j == nil, j.status == "done", j.status == "active" && j.stages[j.current].kind == "commit":
		m.answer(key, "refused")
		return
	case j.status == "stopping", j.status == "stopped":
		m.answer(key, "job %d", id)
		return
	case j.status == "failed" && m.conflict(j.spec.Output, id):
		m.answer(key, "refused")
		return
	}
	j.status, j.over, j.ended = "stopping", false, 0
	m.tellJob("ending", j, j.err)
	m.wind(j)
	m.answer(key, "job %d", id)
}

func (m *model) retry(key string, id JobID) {
	j := m.jobs[id]
	if j == nil || j.status != "failed" && j.status != "stopped" || m.conflict(j.spec.Output, id) {
		m.answer(key, "refused")
		return
	}
	for i, s := range j.stages {
		if j.status == "stopped" || s.action == "partial" || s.action == "abort" {
			j.stages[i] = modelStages(j.spec)[i]
			continue
		}
		for _, t := range s.tasks {
			if t.status == "dead" && !s.closed {
				t.status, t.counts = "open", make(map[FailureKind]int)
			}
		}
	}
	j.status, j.over, j.ended, j.err = "active", false, 0, ""
	for j.current = 0; j.stages[j.current].settled(); j.current++ {
	}
	m.tellStage(j)
	m.answer(key, "job %d", id)
}

func (m *model) forget(key string, id JobID) {
	j := m.jobs[id]
	if j == nil || !j.over {
		m.answer(key, "refused")
		return
	}
	delete(m.jobs, id)
	m.tellJob("forgotten", j, "")
	m.answer(key, "job %d", id)
}

// task finds the task that an attempt's news is for; nil when nobody waits for them.
func (m *model) task(id JobID, stage uint32, index uint64) (*modelJob, *modelStage, *modelTask) {
	j := m.jobs[id]
	if j == nil || j.over || uint64(j.current) != uint64(stage) {
		return nil, nil, nil
	}
	s := j.stages[j.current]
	if index >= uint64(len(s.tasks)) || s.closed || s.tasks[index].status != "open" {
		return j, s, nil
	}
	return j, s, s.tasks[index]
}

func (m *model) done(id JobID, stage uint32, list []Completion) {
	var last *modelJob
	for _, c := range list {
		j, s, t := m.task(id, stage, c.Index)
		m.wins = append(m.wins, t != nil)
		if t == nil {
			continue
		}
		if c.Size == 0 {
			c.Checksum = 0
		}
		last, t.status, t.won = j, "done", c
		if j.started == 0 {
			j.started = m.time
		}
		s.closed = s.kind == "map" && j.spec.FirstSuccess
	}
	if last != nil {
		m.advance(last)
	}
}

func (m *model) fail(id JobID, stage uint32, index uint64, f Failure) {
	j, s, t := m.task(id, stage, index)
	if t == nil {
		return
	}
	if j.started == 0 {
		j.started = m.time
	}
	if len(t.failures) == 0 {
		s.failedTasks++
		t.kept = s.failedTasks <= 1000
	}
	f.Time, f.Attempt = m.time, uint32(len(t.failures)+1)
	t.failures = append(t.failures, f)
	t.counts[f.Kind]++
	survives := [failureKinds]int{
		ProgramError: int(j.spec.Retries), Timeout: int(j.spec.Retries), OutOfMemory: int(j.spec.Retries), OutputError: int(j.spec.Retries),
		LostWorker: 8, BadInput: 0, BadProgram: min(2, int(j.spec.Retries)), Preempted: math.MaxInt,
	}
	if t.counts[f.Kind] > survives[f.Kind] {
		t.status = "dead"
		if j.err == "" {
			j.err = fmt.Sprintf("task %d/%s/%d: %s", id, s.kind, index, f.Message)
		}
		if s.count("dead") <= 100 {
			m.tell("died", fmt.Sprintf("task %d/%s/%d on worker %d", id, s.kind, index, f.Worker), j.status, fmt.Sprintf("%v: %s", f.Kind, f.Message))
		}
	}
	m.advance(j)
}

func (s *modelStage) count(status string) (n uint64) {
	for _, t := range s.tasks {
		if t.status == status {
			n++
		}
	}
	return n
}

func (s *modelStage) settled() bool { return s.closed || s.count("open") == 0 }

// advance moves a job whose current stage has settled.
func (m *model) advance(j *modelJob) {
	s := j.stages[j.current]
	if !s.settled() {
		return
	}
	switch {
	case j.status == "stopping":
		m.end(j, "stopped")
	case j.status == "failing":
		m.end(j, "failed")
	case s.count("dead") > 0 && !s.closed:
		j.status = "failing"
		m.tellJob("ending", j, j.err)
		if s.kind == "commit" {
			m.end(j, "failed")
			return
		}
		m.wind(j)
	case j.current == len(j.stages)-1:
		m.end(j, "done")
	default:
		j.current++
		m.tellStage(j)
	}
}

func (m *model) register(key string, info WorkerInfo) {
	for id, w := range m.workers {
		if w.Identity == info.Identity {
			w.WorkerInfo = info
			if w.Status == WorkerDead {
				w.Status = WorkerAlive
				m.tell("joined", fmt.Sprintf("worker %d", id), "alive", w.Host)
			}
			m.answer(key, "worker %d", id)
			return
		}
	}
	m.joined++
	m.workers[m.joined] = &Worker{ID: m.joined, WorkerInfo: info}
	m.tell("joined", fmt.Sprintf("worker %d", m.joined), "alive", info.Host)
	m.answer(key, "worker %d", m.joined)
}

func (m *model) setWorker(key string, id WorkerID, to WorkerStatus) {
	w := m.workers[id]
	if w != nil && w.Status != to {
		may := [...][]WorkerStatus{
			WorkerAlive:    {WorkerDead, WorkerDraining, WorkerRemoved},
			WorkerDead:     {WorkerAlive, WorkerRemoved},
			WorkerDraining: {WorkerDead, WorkerRemoved},
			WorkerRemoved:  nil, // it is not there
		}
		if !slices.Contains(may[w.Status], to) {
			w = nil
		}
	}
	if w == nil {
		m.answer(key, "refused")
		return
	}
	if w.Status != to {
		detail := w.Host
		if to == WorkerRemoved {
			detail = ""
		}
		m.tell("changed", fmt.Sprintf("worker %d", id), to.String(), detail)
	}
	if w.Status = to; to == WorkerRemoved {
		delete(m.workers, id)
	}
	m.answer(key, "worker %d", id)
}

// dump writes the whole state down, in the words that dumpMachine uses.
func (m *model) dump() string {
	var b strings.Builder
	fmt.Fprintf(&b, "time %d, jobs %d, workers %d\n", m.time, m.made, m.joined)
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		j := m.jobs[id]
		var read, wrote, records uint64
		for _, t := range j.stages[0].tasks {
			if t.status == "done" {
				read, wrote, records = read+t.won.InputBytes, wrote+t.won.Size, records+t.won.Records
			}
		}
		fmt.Fprintf(&b, "job %d %s %s over %v; %d %d %d; %q; %d %d %d\n",
			id, j.uid, j.status, j.over, j.created, j.started, j.ended, j.err, read, wrote, records)
		for i, s := range j.stages {
			failures := 0
			for _, t := range s.tasks {
				failures += len(t.failures)
			}
			fmt.Fprintf(&b, " stage %d %s %s: %d %d %d %d %v\n",
				i, s.kind, s.action, len(s.tasks), s.count("done"), s.count("dead"), failures, s.closed)
			for k, t := range s.tasks {
				if t.status == "open" && len(t.failures) == 0 {
					continue
				}
				fmt.Fprintf(&b, "  task %d %s", k, t.status)
				if t.status == "done" {
					fmt.Fprintf(&b, " %d %d %d %d", t.won.Lease, t.won.Size, t.won.Records, t.won.Checksum)
				}
				var kept []Failure
				if t.kept {
					kept = t.failures[max(0, len(t.failures)-3):]
				}
				var counts [failureKinds]int
				for kind, n := range t.counts {
					counts[kind] = min(n, 255)
				}
				fmt.Fprintf(&b, " ended %d counts %v %v\n", len(t.failures), counts, kept)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.workers)) {
		fmt.Fprintf(&b, "worker %d %+v\n", id, *m.workers[id])
	}
	return b.String()
}

// dumpMachine writes down what the machine's readers see.
func dumpMachine(m *Machine) string {
	var b strings.Builder
	fmt.Fprintf(&b, "time %d, jobs %d, workers %d\n", m.Time(), m.lastJob, m.lastWorker)
	for _, id := range m.Jobs() {
		j := m.Job(id)
		fmt.Fprintf(&b, "job %d %s %v over %v; %d %d %d; %q; %d %d %d\n", id, j.UID, j.Status, !slices.Contains(m.Live(), id),
			j.Created, j.Started, j.Ended, j.Error, j.ReadBytes, j.OutputBytes, j.Records)
		for i, s := range j.Stages {
			action := [...]string{"", "publish", "partial", "abort"}[s.Action]
			fmt.Fprintf(&b, " stage %d %s %s: %d %d %d %d %v\n", i, s.Name, action, s.Tasks, s.Done, s.Dead, s.Failed, s.Closed)
			for k := range s.Tasks {
				status, trouble := s.Status(k), s.Trouble(k)
				if status == TaskOpen && trouble.Ended == 0 {
					continue
				}
				fmt.Fprintf(&b, "  task %d %v", k, status)
				if out, ok := s.Output(k); ok {
					fmt.Fprintf(&b, " %d %d %d %d", out.Winner, out.Size, out.Records, out.Checksum)
				}
				fmt.Fprintf(&b, " ended %d counts %v %v\n", trouble.Ended, trouble.Counts, trouble.Last)
			}
		}
	}
	for _, id := range m.Workers() {
		fmt.Fprintf(&b, "worker %d %+v\n", id, *m.Worker(id))
	}
	return b.String()
}

// dumpFacts writes facts down as the model does.
func dumpFacts(facts []Fact) (lines []string) {
	kinds := [...]string{"submitted", "stage", "reopened", "died", "ending", "ended", "forgotten", "joined", "changed", "applied"} // as EventKind counts
	for i := range facts {
		f := &facts[i]
		about, status := fmt.Sprintf("job %d", f.Job), f.JobStatus.String()
		switch f.Kind {
		case StageStarted:
			about += " " + f.Stage
		case TaskDied:
			about = fmt.Sprintf("task %d/%s/%d on worker %d", f.Job, f.Stage, f.Task, f.Worker)
		case WorkerJoined, WorkerChanged:
			about, status = fmt.Sprintf("worker %d", f.Worker), f.WorkerStatus.String()
		case JobSubmitted, TaskReopened, JobEnding, JobEnded, JobForgotten, RequestApplied, StageEnded:
		}
		lines = append(lines, fmt.Sprintf("at %d: %s %s, %s, %q", f.Time, kinds[f.Kind], about, status, f.Detail))
	}
	return lines
}
