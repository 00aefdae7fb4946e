package state

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// model is the state machine once more, written from the documentation with no care for speed: a struct per task, every
// attempt kept, every figure recomputed when it is read. The random tests compare the machine with it.
type model struct {
	time    int64
	level   uint32
	jobs    map[JobID]*modelJob
	keys    map[string]modelKey
	made    JobID
	workers map[WorkerID]*Worker
	joined  WorkerID
	staged  []modelStaging // oldest first
	ended   []JobID        // that others may wait for
	index   int            // of the entry

	others    bool         // attempts may run of a job that the command ends
	locks     []*modelLock // in order
	lockID    LockID
	lockFence uint64

	tokens      map[string]Token
	machines    map[string]Enrolment
	authorities map[uint64]Authority
	quotas      map[string]Quota
	retentions  map[string]Retention

	facts []string // all of them

	released []string // the locks that the last command has released
	answers  []string // what the requests of the last entry were told
	wins     []bool   // the verdicts of the last entry
}

type modelJob struct {
	id                      JobID
	uid                     string
	spec                    *Spec
	status                  string
	stages                  []*modelStage
	created, started, ended int64
	err                     string
	over                    bool
	read                    uint64
	fence                   Lease
	sizes                   map[modelFile]uint64 // of files that have changed
	blocker                 JobID                // because of which it was not run
	pinned                  bool
}

// wrote is the size of the outputs.
func (j *modelJob) wrote() (bytes uint64) {
	for _, t := range j.parts().tasks {
		if t.status == "done" {
			bytes += t.won.Size
		}
	}
	return bytes
}

// modelFile is a file of an input: those of a job share tasks by twos, or do not.
type modelFile struct{ task, place uint64 }

// taskSize is the size of the files of a task.
func (j *modelJob) taskSize(task uint64) (n uint64) {
	files := uint64(1)
	if j.spec.Input.packed() {
		files = 2
	}
	for place := range files {
		if size, changed := j.sizes[modelFile{task, place}]; changed {
			n += size
		} else {
			n += modelFileSize
		}
	}
	return n
}

// modelFileSize is the size of each file at submit.
const modelFileSize = 5

type modelStage struct {
	spec        StageSpec
	action      string
	fence       Lease
	tasks       []*modelTask
	closed      bool
	growing     bool
	failedTasks int // how many tasks have failed at least once
}

type modelTask struct {
	status   string
	won      Completion
	worker   WorkerID            // that has won; 0: not recorded
	failures []Failure           // all of them
	counts   map[FailureKind]int // since the last retry
	kept     bool                // its failures may be shown
	losses   int                 // outputs that were lost at no charge
	lost     Lease               // of the last output that was lost
}

// ended is how many attempts have come to nothing.
func (t *modelTask) ended() int { return len(t.failures) + t.losses }

type modelStaging struct {
	uid    string
	blocks int
	time   int64
}

type modelKey struct {
	job  JobID
	text string // the request
	time int64
}

func newModel() *model {
	return &model{
		jobs: map[JobID]*modelJob{}, keys: map[string]modelKey{}, workers: map[WorkerID]*Worker{},
		tokens: map[string]Token{}, machines: map[string]Enrolment{}, authorities: map[uint64]Authority{}, quotas: map[string]Quota{}, retentions: map[string]Retention{},
	}
}

func newModelStage(spec StageSpec, action string) *modelStage {
	s := &modelStage{spec: spec, action: action}
	for range spec.Tasks {
		s.tasks = append(s.tasks, &modelTask{status: "open", counts: make(map[FailureKind]int)})
	}
	return s
}

func modelStages(spec *Spec) []*modelStage {
	plan := spec.Stages
	if plan == nil {
		plan = []StageSpec{{Name: "map", Role: RoleMap, Tasks: max(1, spec.Input.Tasks)}}
		if spec.Collect {
			plan = append(plan, StageSpec{Name: "collect", Role: RoleCollect, Tasks: 1, From: []uint32{0}})
		}
		if !spec.Spool {
			plan = append(plan, StageSpec{Name: "commit", Role: RoleCommit, Tasks: 1, From: []uint32{0, 1}[:len(plan)]})
		}
	}
	var stages []*modelStage
	for _, s := range plan {
		action := ""
		if s.Role == RoleCommit {
			action = "publish"
		}
		stages = append(stages, newModelStage(s, action))
	}
	stages[0].growing = spec.Input.Growing
	return stages
}

// ready reports whether tasks of stage i may run.
func (j *modelJob) ready(i int) bool {
	s := j.stages[i]
	if j.over || j.status == "waiting" || s.settled() {
		return false
	}
	if j.status != "active" {
		return s.spec.Role == RoleCommit
	}
	for _, from := range s.spec.From {
		if !j.stages[from].complete() {
			return false
		}
	}
	return true
}

// parts is the stage that makes the parts.
func (j *modelJob) parts() *modelStage {
	last := j.stages[0]
	for _, s := range j.stages {
		if s.spec.Role == RoleMap || s.spec.Role == RoleReduce {
			last = s
		}
	}
	return last
}

// begin starts an entry at time now.
func (m *model) begin(now int64) {
	m.time = max(m.time, now)
	m.index++
	m.answers, m.wins = nil, nil
	for key, k := range m.keys {
		if m.time-k.time > 24*3600*1000 {
			delete(m.keys, key)
		}
	}
	for _, s := range slices.Clone(m.staged) {
		if m.time-s.time > 15*60*1000 {
			m.unstage(s.uid)
		}
	}
}

// unstage returns the number of blocks that were staged.
func (m *model) unstage(uid string) (n int) {
	var rest []modelStaging
	for _, s := range m.staged {
		if s.uid == uid {
			n = s.blocks
		} else {
			rest = append(rest, s)
		}
	}
	m.staged = rest
	return n
}

func (m *model) stage(key, uid string, before, blocks int) {
	for i := range m.staged {
		if s := &m.staged[i]; s.uid == uid && s.blocks == before {
			s.blocks, s.time = s.blocks+blocks, m.time
			m.answer(key, "job 0")
			return
		}
	}
	if had := m.unstage(uid); had == 0 && before == 0 {
		m.staged = append(m.staged, modelStaging{uid, blocks, m.time})
		m.answer(key, "job 0")
		return
	}
	m.answer(key, "refused")
}

// record adds a fact: about a job, one of its stages or tasks, or about a worker.
func (m *model) record(kind, about, status, detail string) {
	m.facts = append(m.facts, fmt.Sprintf("at %d: %s %s, %s, %q", m.time, kind, about, status, detail))
}

func (m *model) recordJob(kind string, j *modelJob, detail string) {
	m.record(kind, fmt.Sprintf("job %d", j.id), j.status, detail)
}

func (m *model) recordStage(j *modelJob, s *modelStage) {
	m.record("stage", fmt.Sprintf("job %d %s", j.id, s.spec.Name), j.status, "")
}

func (m *model) recordReady(j *modelJob) {
	for i, s := range j.stages {
		if j.ready(i) {
			m.recordStage(j, s)
		}
	}
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
	s.Stages = nil
	if s.Deferred != nil {
		s.Deferred, s.Input = nil, Input{Kind: InputFiles} // whether the leader lists them now or later
	}
	if s.Input.Kind == InputFiles {
		s.Input = Input{Kind: InputFiles} // the leader lists them
	}
	return fmt.Sprintf("%+v", s)
}

// submit makes the jobs one after the other, in a copy of the model, which takes its place if none is refused.
func (m *model) submit(key string, list []Submission) {
	var complete []bool
	text := ""
	for _, s := range list {
		complete = append(complete, s.Staged == 0 || m.unstage(s.UID) == int(s.Staged))
		text += specText(s.Spec)
	}
	if k, ok := m.keys[key]; ok && key != "" {
		if k.text == text {
			m.answer(key, "job %d", k.job)
		} else {
			m.answer(key, "refused")
		}
		return
	}
	first, refused := m.made+1, slices.Contains(complete, false)
	made := map[JobID]*modelJob{}
	for _, s := range list {
		spec := *s.Spec
		spec.After = slices.Clone(spec.After)
		for i, d := range spec.After {
			if d.Peer > 0 {
				spec.After[i] = Dependency{Job: first + JobID(d.Peer) - 1, Any: d.Any}
			}
			refused = refused || m.jobs[spec.After[i].Job] == nil && (d.Peer == 0 || made[spec.After[i].Job] == nil)
		}
		refused = refused || m.overQuota(&spec, len(made)) || m.level < 2 && m.conflict(m.jobs, spec.Output, 0)
		refused = refused || !spec.Overwrite && m.conflict(made, spec.Output, 0)
		id := first + JobID(len(made))
		if j := (&modelJob{spec: &spec}); m.level >= 2 && spec.FailOnConflict && len(spec.After) == 0 && m.conflictText(spec.User, j.wants(false), m.lockID+1, 0) != "" {
			refused = true
		}
		made[id] = &modelJob{id: id, uid: s.UID, spec: &spec, status: "active", stages: modelStages(&spec), created: m.time}
	}
	if refused {
		m.answer(key, "refused")
		return
	}
	m.keys[key] = modelKey{job: first, text: text, time: m.time}
	for id := first; made[id] != nil; id++ {
		j := made[id]
		m.made, m.jobs[id] = id, j
		if len(j.spec.After) > 0 {
			j.status = "waiting"
		}
		m.recordJob("submitted", j, j.spec.Name)
		j.status = "waiting"
		m.proceed(j)
		m.release()
	}
	m.answer(key, "job %d", first)
}

// conflict reports whether a job that is not over, or one that came after job after and is done, writes at, in or around output.
func (m *model) conflict(jobs map[JobID]*modelJob, output string, after JobID) bool {
	for _, j := range jobs {
		later := after > 0 && j.id > after && j.status == "done"
		if j.id == after || (j.over || m.level >= 2 && after > 0) && !later {
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
		if s.spec.Role == RoleCommit {
			return i
		}
	}
	return -1
}

func (m *model) end(j *modelJob, status string) {
	waited := j.status == "waiting"
	j.status, j.over, j.ended = status, true, m.time
	if status == "done" {
		j.err = ""
	}
	m.leaveEnded(j, waited)
	m.recordJob("ended", j, j.err)
	m.ended = append(m.ended, j.id)
}

// proceed starts a job, unless one that it comes after has not ended, or has ended otherwise than it must.
func (m *model) proceed(j *modelJob) {
	var blocker *modelJob
	pending := false
	for _, d := range j.spec.After {
		before := m.jobs[d.Job]
		switch {
		case before == nil:
		case !before.over:
			pending = true
		case before.status != "done" && !d.Any && blocker == nil:
			blocker = before
		}
	}
	switch {
	case blocker != nil && blocker.blocker != 0:
		j.err, j.blocker = blocker.err, blocker.blocker
		m.end(j, "failed")
	case blocker != nil:
		j.err, j.blocker = fmt.Sprintf("not run: it comes after job %d, which %s", blocker.id, map[string]string{"failed": "has failed", "stopped": "was stopped"}[blocker.status]), blocker.id
		m.end(j, "failed")
	case !pending:
		m.enter(j)
	default:
		if l := m.lockOf(j.id); l != nil {
			m.dropLock(l)
		}
	}
}

// setInput gives a job its deferred input, of so many tasks; 0: it cannot be planned.
func (m *model) setInput(key string, id JobID, tasks uint64) {
	j := m.jobs[id]
	pending := func(d Dependency) bool { return m.jobs[d.Job] != nil && !m.jobs[d.Job].over }
	switch {
	case j == nil || j.status != "waiting" || j.spec.Deferred == nil || slices.ContainsFunc(j.spec.After, pending) || m.lockOf(id) != nil && m.lockOf(id).fence == 0:
		m.answer(key, "refused")
		return
	case tasks == 0:
		j.err = "gone"
		m.end(j, "failed")
	default:
		spec := *j.spec
		spec.Input, spec.Deferred, spec.Stages = Input{Kind: InputRange, Tasks: tasks}, nil, slices.Clone(spec.Stages)
		for i := range spec.Stages {
			switch spec.Stages[i].Role {
			case RoleMap:
				spec.Stages[i].Tasks = tasks
			case RoleReduce:
				if spec.Stages[i].Fitted {
					spec.Stages[i].Tasks = 2
				}
			case RoleCollect, RoleCommit, RoleCheck, stageRoles:
			}
		}
		j.spec, j.stages, j.status = &spec, modelStages(&spec), "active"
		m.recordReady(j)
	}
	m.answer(key, "job %d", id)
}

// blocked reports whether a job comes after one that has ended otherwise than it must.
func (m *model) blocked(spec *Spec) bool {
	return slices.ContainsFunc(spec.After, func(d Dependency) bool {
		before := m.jobs[d.Job]
		return before != nil && before.over && before.status != "done" && !d.Any
	})
}

// comingAfter returns the jobs that come after one, in order.
func (m *model) comingAfter(id JobID) (list []*modelJob) {
	for _, other := range slices.Sorted(maps.Keys(m.jobs)) {
		if slices.ContainsFunc(m.jobs[other].spec.After, func(d Dependency) bool { return d.Job == id }) {
			list = append(list, m.jobs[other])
		}
	}
	return list
}

// release lets jobs proceed that come after those that have ended.
func (m *model) release() {
	for m.grantLocks() || len(m.ended) > 0 {
		for ; len(m.ended) > 0; m.ended = m.ended[1:] {
			for _, j := range m.comingAfter(m.ended[0]) {
				if j.status == "waiting" {
					m.proceed(j)
				}
			}
		}
	}
}

// revive lets jobs wait again that were not run because of another.
func (m *model) revive(again []JobID) {
	for ; len(again) > 0; again = again[1:] {
		for _, j := range m.comingAfter(again[0]) {
			if j.status == "waiting" {
				m.proceed(j)
			}
			if j.blocker != 0 && !m.blocked(j.spec) && !m.overQuota(j.spec, 0) && !m.conflict(m.jobs, j.spec.Output, j.id) {
				j.status, j.over, j.ended, j.err, j.blocker = "waiting", false, 0, "", 0
				m.proceed(j)
				again = append(again, j.id)
			}
		}
	}
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
	j.fence = max(j.fence, j.stages[commit].fence)
	j.stages[commit] = newModelStage(j.stages[commit].spec, action)
	m.recordStage(j, j.stages[commit])
}

func (m *model) stop(key string, id JobID, fence Lease) {
	j := m.jobs[id]
	committing := false
	if j != nil && j.status == "active" && j.commit() >= 0 {
		committing = j.ready(j.commit()) || m.level < 2 && j.stages[j.commit()].fence > 0
	}
	switch {
	case j == nil, j.status == "done", committing:
		m.answer(key, "refused")
		return
	case j.status == "stopping", j.status == "stopped":
		m.answer(key, "job %d", id)
		return
	case j.status == "failed" && m.conflict(m.jobs, j.spec.Output, id):
		m.answer(key, "refused")
		return
	}
	idle := j.spec.Deferred != nil || j.fence == 0 && (j.status == "waiting" || j.blocker != 0)
	if own := m.lockOf(id); !idle && m.level >= 2 && !j.spec.Spool && (own == nil || own.fence == 0) {
		if own != nil {
			m.dropLock(own)
		}
		first, again := m.blockers(j.wants(true), m.lockID+1), m.reclaim(j)
		switch {
		case again:
		case len(first) > 0 && j.over:
			m.answer(key, "refused")
			return
		case len(first) > 0:
			slices.SortFunc(first, func(a, b *modelLock) int { return cmp.Compare(a.id, b.id) })
			j.err = fmt.Sprintf("stopped while it waited: what job %d has left in its output %q cannot be removed while %s: wait for it, then stop the job",
				id, j.spec.Output, m.standing(first[0], j.spec.User, j.wants(true)))
			m.end(j, "failed")
			m.answer(key, "job %d", id)
			return
		}
		if !again {
			m.addLock(&modelLock{job: id, user: j.spec.User, names: j.wants(true), max: 1, cleanup: true, priority: j.spec.Priority})
		}
	}
	j.status, j.over, j.ended, j.fence, j.blocker = "stopping", false, 0, max(j.fence, fence), 0
	m.recordJob("ending", j, j.err)
	if l := m.lockOf(id); idle && l != nil {
		m.dropLock(l)
	}
	if idle {
		m.end(j, "stopped")
	} else {
		m.wind(j)
	}
	m.answer(key, "job %d", id)
}

func (m *model) retry(key string, id JobID, fence Lease, lost []OutputRange, changed []FileChange) {
	j := m.jobs[id]
	if j != nil && j.status == "active" && len(changed)+len(lost) > 0 {
		if at := j.commit(); at >= 0 && (j.ready(at) || j.stages[at].fence != 0) {
			m.answer(key, "refused")
			return
		}
		if len(changed) == 0 && !j.anyLost(lost) {
			m.answer(key, "job %d", id)
			return
		}
		j.fence = max(j.fence, fence)
		j.change(changed)
		j.redoLost(lost)
		m.recordReady(j)
		m.answer(key, "job %d", id)
		return
	}
	if j == nil || j.stages[0].growing && (!j.stages[0].closed || j.status == "stopped") || m.blocked(j.spec) || j.status != "failed" && j.status != "stopped" && (j.status != "done" || !j.anyLost(lost)) || m.overQuota(j.spec, 0) || m.conflict(m.jobs, j.spec.Output, id) || m.overtaken(j) != nil {
		m.answer(key, "refused")
		return
	}
	j.fence = max(j.fence, fence)
	for i, s := range j.stages {
		j.fence, s.fence = max(j.fence, s.fence), 0
		if j.status == "stopped" {
			j.read = 0
		}
		if j.status == "stopped" || s.action == "partial" || s.action == "abort" {
			j.stages[i] = modelStages(j.spec)[i]
			continue
		}
		for _, t := range s.tasks {
			if t.status == "dead" && !s.closed {
				t.status, t.counts = "open", make(map[FailureKind]int)
			}
			delete(t.counts, LostOutput)
		}
		s.closed = s.closed && s.spec.Role != RoleCheck
	}
	j.change(changed)
	j.redoLost(lost)
	j.status, j.over, j.ended, j.err, j.blocker = "waiting", false, 0, "", 0
	m.proceed(j)
	m.revive([]JobID{id})
	m.answer(key, "job %d", id)
}

// change gives files their new sizes. What was made from them is made again.
func (j *modelJob) change(changed []FileChange) {
	if j.spec.Input.Kind != InputFiles {
		return
	}
	was := map[uint64]uint64{}
	for _, c := range changed {
		was[c.Task] = j.taskSize(c.Task)
	}
	redone := make([]bool, len(j.stages))
	for _, c := range changed {
		if c.Task >= j.spec.Input.Tasks || c.File > 0 && !j.spec.Input.packed() {
			continue
		}
		size := was[c.Task]
		if j.sizes == nil {
			j.sizes = map[modelFile]uint64{}
		}
		j.sizes[modelFile{c.Task, c.File}] = c.Version.Size
		for i, s := range j.stages {
			redone[i] = s.spec.Role == RoleMap && j.redo(s, c.Task, size) || redone[i]
		}
	}
	j.redoReaders(redone)
}

// redo opens a done task, which has read size bytes if it has a split.
func (j *modelJob) redo(s *modelStage, task, size uint64) bool {
	t := s.tasks[task]
	if t.status != "done" {
		return false
	}
	t.status, t.lost, s.closed = "open", t.won.Lease, false
	t.losses++
	if s.spec.Role == RoleMap && j.spec.Input.Kind == InputFiles {
		j.read -= min(j.read, size)
	}
	return true
}

// anyLost reports whether a task of the ranges is done.
func (j *modelJob) anyLost(lost []OutputRange) bool {
	for i, s := range j.stages {
		for k, t := range s.tasks {
			if j.isLost(lost, i, k) && t.status == "done" {
				return true
			}
		}
	}
	return false
}

func (j *modelJob) isLost(lost []OutputRange, stage, task int) bool {
	return j.spec.Spool && j.stages[stage].spec.Role != RoleCommit && slices.ContainsFunc(lost, func(r OutputRange) bool {
		return int(r.Stage) == stage && uint64(task) >= r.First && uint64(task) < r.First+r.Tasks
	})
}

func (j *modelJob) redoLost(lost []OutputRange) {
	redone := make([]bool, len(j.stages))
	for i, s := range j.stages {
		for k := range s.tasks {
			redone[i] = j.isLost(lost, i, k) && j.redo(s, uint64(k), j.taskSize(uint64(k))) || redone[i]
		}
	}
	j.redoReaders(redone)
}

func (j *modelJob) redoReaders(redone []bool) {
	for i, s := range j.stages {
		if slices.ContainsFunc(s.spec.From, func(from uint32) bool { return redone[from] }) {
			for k := range s.tasks {
				redone[i] = j.redo(s, uint64(k), j.taskSize(uint64(k))) || redone[i]
			}
		}
	}
}

func (m *model) forget(key string, id JobID) {
	j := m.jobs[id]
	if j == nil || !j.over || j.pinned {
		m.answer(key, "refused")
		return
	}
	delete(m.jobs, id)
	m.recordJob("forgotten", j, "")
	m.answer(key, "job %d", id)
}

// task finds the task that a report of an attempt is about; nil if the report does not count.
func (m *model) task(id JobID, stage uint32, index uint64, lease Lease) (*modelJob, *modelStage, *modelTask) {
	j := m.jobs[id]
	if j == nil || int(stage) >= len(j.stages) || !j.ready(int(stage)) {
		return nil, nil, nil
	}
	s := j.stages[stage]
	if index >= uint64(len(s.tasks)) || s.tasks[index].status != "open" || lease <= max(j.fence, s.fence, s.tasks[index].lost) {
		return j, s, nil
	}
	return j, s, s.tasks[index]
}

func (m *model) lost(id JobID, stage uint32, index uint64, f Failure, fence Lease) {
	j := m.jobs[id]
	if j == nil || j.status != "active" || int(stage) >= len(j.stages) {
		return
	}
	s, needed := j.stages[stage], false
	for _, reader := range j.stages {
		needed = needed || slices.Contains(reader.spec.From, stage) && !reader.complete()
	}
	if m.level >= 2 && !needed || index >= uint64(len(s.tasks)) || s.spec.Role == RoleCommit || s.tasks[index].status != "done" || s.tasks[index].won.Lease != f.Lease {
		return
	}
	t := s.tasks[index]
	m.reopen(j, stage, index, fence)
	if m.level < 2 {
		t.losses++
		return
	}
	f.Kind = LostOutput
	m.charge(j, s, index, f)
	if t.status == "dead" {
		m.endIfDead(j, s, true)
	}
}

// reopen opens a done task, and those that have read its output and may have been read themselves.
func (m *model) reopen(j *modelJob, stage uint32, index uint64, fence Lease) {
	s, t := j.stages[stage], j.stages[stage].tasks[index]
	var complete []int
	for i, reader := range j.stages {
		switch {
		case !slices.Contains(reader.spec.From, stage):
		case reader.complete():
			complete = append(complete, i)
		case j.ready(i):
			reader.fence = max(reader.fence, fence)
		}
	}
	t.status, t.lost, s.closed = "open", t.won.Lease, false
	if m.level >= 2 && s.spec.Role == RoleMap && j.spec.Input.Kind == InputFiles {
		j.read -= min(j.read, j.taskSize(index))
	}
	for _, i := range complete {
		if m.level >= 2 {
			m.reopenAll(j, i, fence)
		}
	}
}

// reopenAll opens the done tasks of a stage.
func (m *model) reopenAll(j *modelJob, stage int, fence Lease) {
	for k, t := range j.stages[stage].tasks {
		if t.status == "done" && j.stages[stage].spec.Role != RoleCommit {
			m.reopen(j, uint32(stage), uint64(k), fence)
			t.losses++
		}
	}
}

func (m *model) done(worker WorkerID, id JobID, stage uint32, list []Completion, others bool) {
	var last *modelJob
	var settled *modelStage
	another := false // than what was lost
	for _, c := range list {
		j, s, t := m.task(id, stage, c.Index, c.Lease)
		m.wins = append(m.wins, t != nil)
		if t == nil {
			continue
		}
		if c.Size == 0 {
			c.Checksum = 0
		}
		another = another || t.lost != 0 && (t.won.Size != c.Size || t.won.Checksum != c.Checksum)
		last, settled, t.status, t.won, t.worker = j, s, "done", c, 0
		t.won.PeakKiB = newPeak(c.PeakKiB).kib()
		if s.spec.Role != RoleReduce || m.level < 2 {
			t.won.InputBytes = 0
		}
		if m.level > 0 && worker > 0 {
			t.worker = worker
		} else {
			t.won.Started, t.won.Millis = 0, 0
		}
		if j.started == 0 {
			j.started = m.time
		}
		if s.spec.Role == RoleMap {
			j.read += c.InputBytes
		}
		s.closed = s == j.parts() && j.spec.FirstSuccess
	}
	for i := 0; another && m.level >= 2 && i < len(last.stages); i++ {
		if slices.Contains(last.stages[i].spec.From, stage) {
			m.reopenAll(last, i, 0)
		}
	}
	if last != nil {
		m.others = others || settled.count("open") > 0
		m.advance(last, settled)
	}
}

func (m *model) fail(id JobID, stage uint32, index uint64, f Failure, others bool) {
	j, s, t := m.task(id, stage, index, f.Lease)
	if t == nil {
		return
	}
	if j.started == 0 {
		j.started = m.time
	}
	m.charge(j, s, index, f)
	m.others = others || j.leasable()
	if f.Cancel {
		j.err = fmt.Sprintf("stopped by its program: task %d/%s/%d: %s", id, s.spec.Name, index, f.Message)
		if !s.settled() {
			m.fails(j)
			return
		}
	}
	m.endIfDead(j, s, t.status == "dead" && !f.Cancel)
}

// charge adds a failure to the budget of an open task.
func (m *model) charge(j *modelJob, s *modelStage, index uint64, f Failure) {
	id, t := j.id, s.tasks[index]
	if len(t.failures) == 0 {
		s.failedTasks++
		t.kept = s.failedTasks <= 1000
	}
	f.Time, f.Attempt = m.time, uint32(t.ended()+1)
	t.failures = append(t.failures, f)
	t.counts[f.Kind]++
	survives := [failureKinds]int{
		ProgramError: int(j.spec.Retries), Timeout: int(j.spec.Retries), OutOfMemory: int(j.spec.Retries), OutputError: int(j.spec.Retries),
		LostOutput: 4, LostWorker: 8, BadInput: 0, BadProgram: min(2, int(j.spec.Retries)), Preempted: math.MaxInt,
	}
	if t.counts[f.Kind] > survives[f.Kind] || f.Cancel {
		t.status = "dead"
		message := f.Message
		if f.Kind == LostOutput {
			message = "its output was lost 5 times: " + f.Message
		}
		if j.err == "" {
			j.err = fmt.Sprintf("task %d/%s/%d: %s", id, s.spec.Name, index, message)
		}
		if s.count("dead") <= 100 {
			m.record("died", fmt.Sprintf("task %d/%s/%d on worker %d", id, s.spec.Name, index, f.Worker), j.status, fmt.Sprintf("%v: %s", f.Kind, f.Message))
		}
	}
}

// endIfDead ends a job with too many dead tasks, of which one more is, or moves it on.
func (m *model) endIfDead(j *modelJob, s *modelStage, dead bool) {
	if dead && !s.settled() && m.tooMany(j) {
		m.fails(j)
		return
	}
	m.advance(j, s)
}

// fails ends a job that has more tasks to run.
func (m *model) fails(j *modelJob) {
	j.status = "failing"
	m.recordJob("ending", j, j.err)
	m.wind(j)
}

func (m *model) grow(key string, id JobID, blocks int, more *Input, last bool) {
	j := m.jobs[id]
	if j == nil || j.status != "active" || !j.stages[0].growing || j.stages[0].closed || len(j.spec.Input.Blocks) != blocks {
		m.answer(key, "refused")
		return
	}
	spec, s := *j.spec, j.stages[0]
	spec.Input.Blocks = append(slices.Clone(spec.Input.Blocks), more.Blocks...)
	spec.Input.Tasks += more.Tasks
	j.spec = &spec
	s.tasks = append(s.tasks, newModelStage(StageSpec{Tasks: more.Tasks}, "").tasks...)
	s.growing = !last
	if last {
		m.endIfDead(j, s, true)
	}
	m.answer(key, "job %d", id)
}

// tooMany reports whether more tasks of a job are dead than it survives, and adds that to its error.
func (m *model) tooMany(j *modelJob) bool {
	if j.spec.MaxFails == nil || j.spec.MaxFails.Percent && j.stages[0].growing && !j.stages[0].closed {
		return false
	}
	dead, tasks := 0.0, 0.0
	for _, s := range j.stages {
		dead += float64(s.count("dead"))
		if s.spec.Role == RoleMap {
			tasks += float64(len(s.tasks))
		}
	}
	most, text := float64(j.spec.MaxFails.N), fmt.Sprint(j.spec.MaxFails.N)
	if j.spec.MaxFails.Percent {
		most, text = tasks/100*most, text+"%"
	}
	if dead <= most {
		return false
	}
	noun := "tasks"
	if dead == 1 {
		noun = "task"
	}
	j.err = fmt.Sprintf("stopped after %v failed %s (--max-fails %s); the first: %s", dead, noun, text, j.err)
	return true
}

func (s *modelStage) count(status string) (n uint64) {
	for _, t := range s.tasks {
		if t.status == status {
			n++
		}
	}
	return n
}

func (s *modelStage) settled() bool { return s.closed || s.count("open") == 0 && !s.growing }

func (s *modelStage) complete() bool {
	return s.closed || s.count("done") == uint64(len(s.tasks)) && !s.growing
}

// advance moves a job on if stage s of it has settled.
func (m *model) advance(j *modelJob, s *modelStage) {
	if !s.settled() {
		return
	}
	for i, check := range j.stages {
		if j.status == "active" && check.spec.Role == RoleCheck && j.ready(i) {
			check.closed = !j.keeps()
		}
	}
	switch {
	case j.status == "stopping":
		m.end(j, "stopped")
	case j.status == "failing":
		m.end(j, "failed")
	case !s.complete():
		j.status = "failing"
		m.recordJob("ending", j, j.err)
		if s.spec.Role == RoleCommit {
			m.end(j, "failed")
			return
		}
		m.wind(j)
	case !slices.ContainsFunc(j.stages, func(s *modelStage) bool { return !s.complete() }):
		m.end(j, "done")
	default:
		number := uint32(slices.Index(j.stages, s))
		for i, reader := range j.stages {
			if j.ready(i) && slices.Contains(reader.spec.From, number) {
				m.recordStage(j, reader)
			}
		}
	}
}

// keeps reports whether a task that makes a part, or collects them, has written something.
func (j *modelJob) keeps() bool {
	for _, s := range j.stages {
		for _, t := range s.tasks {
			if (s == j.parts() || s.spec.Role == RoleCollect) && t.status == "done" && t.won.Size > 0 {
				return true
			}
		}
	}
	return false
}

func (m *model) register(key string, info WorkerInfo) {
	var own, holder *Worker
	if m.level < 2 {
		info.Claim = 0
	}
	for _, w := range m.workers {
		if w.Identity == info.Identity && info.Identity != "" {
			own = w
		}
	}
	if own != nil && info.Claim == 0 {
		info.Claim = own.Claim
	}
	for _, w := range m.workers {
		if w.Claim == info.Claim && info.Claim > 0 && w != own {
			holder = w
		}
	}
	expected := info.Identity == ""
	switch {
	case holder != nil && expected:
		if holder.Status == WorkerDead {
			holder.Address = info.Address
		}
		m.answer(key, "worker %d", holder.ID)
		return
	case holder != nil && holder.Status != WorkerDead:
		m.answer(key, "refused")
		return
	case holder != nil && own == nil:
		own = holder
	case holder != nil:
		delete(m.workers, holder.ID)
		m.record("changed", fmt.Sprintf("worker %d", holder.ID), WorkerRemoved.String(), "")
	}
	if own == nil {
		m.joined++
		own = &Worker{ID: m.joined, Status: WorkerDead}
		m.workers[own.ID] = own
	}
	if info.Claim > 0 {
		m.joined = max(m.joined, WorkerID(info.Claim-1))
	}
	own.WorkerInfo = info
	switch {
	case expected:
		m.record("changed", fmt.Sprintf("worker %d", own.ID), "dead", info.Host)
	case own.Status == WorkerDead:
		own.Status, own.Missed = WorkerAlive, 0
		m.record("joined", fmt.Sprintf("worker %d", own.ID), "alive", info.Host)
	}
	m.answer(key, "worker %d", own.ID)
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
		m.record("changed", fmt.Sprintf("worker %d", id), to.String(), detail)
	}
	if to == WorkerDead && w.Status != to && m.level >= 2 {
		w.Missed = m.lockFence + 1
	} else if to == WorkerAlive {
		w.Missed = 0
	}
	if w.Status = to; to == WorkerRemoved {
		delete(m.workers, id)
	}
	m.answer(key, "worker %d", id)
}

// audit records who asked for the command that was answered last.
func (m *model) audit(by *Audit) {
	if by == nil {
		return
	}
	verdict := "done"
	if last := m.answers[len(m.answers)-1]; strings.HasSuffix(last, " refused") && !strings.Contains(last, " locks ") {
		verdict = "refused"
	}
	m.facts = append(m.facts, fmt.Sprintf("at %d: %s %s %q", m.time, auditText(by), verdict, strings.Join(m.released, "; ")))
}

func auditText(a *Audit) string {
	return fmt.Sprintf("%s by %s, %s, token %s, from %s:", a.Action, a.User, a.Role, a.Token, a.Address)
}

// answerIf answers with success, or that the command is refused.
func (m *model) answerIf(key string, done bool) {
	if done {
		m.answer(key, "job 0")
	} else {
		m.answer(key, "refused")
	}
}

func (m *model) putToken(key string, t Token) {
	_, known := m.tokens[t.ID]
	if !known {
		maps.DeleteFunc(m.tokens, func(_ string, old Token) bool { return old.Expires > 0 && old.Expires+7*24*3600*1000 < m.time })
		t.Created = m.time
		m.tokens[t.ID] = t
	}
	m.answerIf(key, !known)
}

func (m *model) revokeToken(key, id string) {
	_, known := m.tokens[id]
	delete(m.tokens, id)
	m.answerIf(key, known)
}

func (m *model) enroll(key string, e Enrolment) {
	old, known := m.machines[e.Fingerprint]
	accepted := !known || old.Revoked == 0 && old.Role == e.Role
	if accepted {
		e.Enrolled, e.Renewed = m.time, m.time
		if known {
			e.Enrolled = old.Enrolled
			if e.Token == "" {
				e.Token = old.Token
			}
			if e.Member == 0 {
				e.Member = old.Member
			}
		}
		m.machines[e.Fingerprint] = e
	}
	m.answerIf(key, accepted)
}

func (m *model) revokeMachine(key, fingerprint string) {
	e, known := m.machines[fingerprint]
	if known && e.Revoked == 0 {
		e.Revoked = m.time
		m.machines[fingerprint] = e
	}
	m.answerIf(key, known)
}

func (m *model) newest() (number uint64) {
	for n := range m.authorities {
		number = max(number, n)
	}
	return number
}

func (m *model) putAuthority(key string, a Authority) {
	accepted := a.Number == m.newest()+1 && len(m.authorities) < 4
	if accepted {
		a.Created = m.time
		m.authorities[a.Number] = a
	}
	m.answerIf(key, accepted)
}

func (m *model) reseal(key string, id JobID, secrets []Secret) {
	j := m.jobs[id]
	accepted := j != nil && len(j.spec.Secrets) == len(secrets)
	for i := range secrets {
		accepted = accepted && j.spec.Secrets[i].Name == secrets[i].Name
	}
	if accepted {
		j.spec.Secrets = secrets
	}
	if accepted {
		m.answer(key, "job %d", id)
	} else {
		m.answer(key, "refused")
	}
}

func (m *model) dropAuthority(key string, number uint64) {
	_, accepted := m.authorities[number]
	if accepted = accepted && number != m.newest(); accepted {
		delete(m.authorities, number)
	}
	m.answerIf(key, accepted)
}

func (m *model) setQuota(key string, q Quota) {
	accepted := q.User != "" && q.Weight <= 1000
	if accepted {
		m.quotas[q.User] = q
	}
	m.answerIf(key, accepted)
}

func (m *model) removeQuota(key, user string) {
	_, accepted := m.quotas[user]
	delete(m.quotas, user)
	m.answerIf(key, accepted)
}

func (m *model) setRetention(key string, r Retention) {
	accepted := r.User != "" && r.ForMS <= retentionMSMax
	if accepted {
		m.retentions[r.User] = r
	}
	if accepted && r.Jobs == 0 && r.ForMS == 0 && r.Bytes == 0 {
		delete(m.retentions, r.User)
	}
	m.answerIf(key, accepted)
}

func (m *model) pin(key string, id JobID, pinned bool) {
	j := m.jobs[id]
	if j == nil {
		m.answer(key, "refused")
		return
	}
	j.pinned = pinned
	m.answer(key, "job %d", id)
}

// beyond is the job that retention does not keep at a time.
func (m *model) beyond(now int64) (beyond JobID) {
	settings := maps.Clone(m.retentions)
	all := settings[Everyone]
	all.Jobs = cmp.Or(all.Jobs, 1000)
	delete(settings, Everyone)
	check := func(r Retention, user func(string) bool) {
		var ids []JobID
		bytes := uint64(0)
		for id, j := range m.jobs {
			if !j.over || j.pinned || m.jobs[j.blocker] != nil || !user(j.spec.User) {
				continue
			}
			ids = append(ids, id)
			if j.spec.Spool && j.status != "stopped" {
				bytes += j.wrote()
			}
		}
		slices.SortFunc(ids, func(a, b JobID) int { return cmp.Or(cmp.Compare(m.jobs[a].ended, m.jobs[b].ended), cmp.Compare(a, b)) })
		many, large := r.Jobs > 0 && len(ids) > int(r.Jobs), r.Bytes > 0 && bytes > r.Bytes && len(ids) > 1
		if beyond == 0 && len(ids) > 0 && (many || large || r.ForMS > 0 && now-m.jobs[ids[0]].ended > int64(r.ForMS)) {
			beyond = ids[0]
		}
	}
	check(all, func(string) bool { return true })
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		check(settings[name], func(user string) bool { return user == name })
	}
	return beyond
}

// overQuota reports whether one more job of a user that is not over is too many, or needs too much.
func (m *model) overQuota(spec *Spec, others int) bool {
	q, own := m.quotas[spec.User]
	if !own {
		q = m.quotas["*"]
	}
	open := others
	for _, j := range m.jobs {
		if !j.over && j.spec.User == spec.User {
			open++
		}
	}
	return q.Jobs > 0 && open >= int(q.Jobs) || q.Slots > 0 && spec.SlotsPerTask > q.Slots
}

// dump writes the whole state down, in the words that dumpMachine uses.
func (m *model) dump() string {
	var b strings.Builder
	fmt.Fprintf(&b, "time %d, jobs %d, workers %d\n", m.time, m.made, m.joined)
	for _, s := range m.staged {
		fmt.Fprintf(&b, "staged %s: %d blocks, at %d\n", s.uid, s.blocks, s.time)
	}
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		j := m.jobs[id]
		records := uint64(0)
		for _, t := range j.parts().tasks {
			if t.status == "done" {
				records += t.won.Records
			}
		}
		fmt.Fprintf(&b, "job %d %s of %d blocks %s by %d over %v; %d %d %d; %q; %d %d %d; %v\n",
			id, j.uid, len(j.spec.Input.Blocks), j.status, j.blocker, j.over, j.created, j.started, j.ended, j.err, j.read, j.wrote(), records, j.pinned)
		for i, s := range j.stages {
			failures := 0
			for _, t := range s.tasks {
				failures += t.ended()
			}
			fmt.Fprintf(&b, " stage %d %s %s: %d %d %d %d %v\n",
				i, s.spec.Name, s.action, len(s.tasks), s.count("done"), s.count("dead"), failures, s.closed)
			for k, t := range s.tasks {
				if t.status == "open" && t.ended() == 0 {
					continue
				}
				fmt.Fprintf(&b, "  task %d %s", k, t.status)
				if t.status == "done" {
					fmt.Fprintf(&b, " %d %d %d %d", t.won.Lease, t.won.Size, t.won.Records, t.won.Checksum)
					fmt.Fprintf(&b, " on %d at %d for %d with %d of %d, %v", t.worker, t.won.Started, t.won.Millis, t.won.PeakKiB, t.won.InputBytes, t.won.Second)
				}
				var kept []Failure
				if t.kept {
					kept = t.failures[max(0, len(t.failures)-3):]
				}
				var counts [failureKinds]int
				for kind, n := range t.counts {
					counts[kind] = min(n, 255)
				}
				fmt.Fprintf(&b, " ended %d counts %v %v\n", t.ended(), counts, kept)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.workers)) {
		fmt.Fprintf(&b, "worker %d %+v\n", id, *m.workers[id])
	}
	fmt.Fprintf(&b, "%+v\n%+v\n%+v\n%+v\n%+v\n", m.tokens, m.machines, m.authorities, m.quotas, m.retentions)
	fmt.Fprintf(&b, "not kept: %d, %d\n", m.beyond(m.time), m.beyond(m.time+4000))
	b.WriteString(m.dumpLocks())
	return b.String()
}

// dumpMachine writes down what the machine's readers see.
func dumpMachine(m *Machine) string {
	var b strings.Builder
	fmt.Fprintf(&b, "time %d, jobs %d, workers %d\n", m.Time(), m.lastJob, m.lastWorker)
	for i := range m.staged {
		fmt.Fprintf(&b, "staged %s: %d blocks, at %d\n", m.staged[i].uid, len(m.staged[i].blocks), m.staged[i].time)
	}
	for _, id := range m.Jobs() {
		j := m.Job(id)
		fmt.Fprintf(&b, "job %d %s of %d blocks %v by %d over %v; %d %d %d; %q; %d %d %d; %v\n", id, j.UID, len(j.Spec.Input.Blocks), j.Status, j.Blocker, !slices.Contains(m.Live(), id),
			j.Created, j.Started, j.Ended, j.Error, j.ReadBytes, j.OutputBytes, j.Records, j.Pinned)
		for i, s := range j.Stages {
			action := [...]string{"", "publish", "partial", "abort"}[s.Action]
			fmt.Fprintf(&b, " stage %d %s %s: %d %d %d %d %v\n", i, s.Name, action, s.Tasks, s.Done, s.Dead, s.Failed, s.Closed)
			for k := range s.Tasks {
				status, failures := s.Status(k), s.Failures(k)
				if status == TaskOpen && failures.Ended == 0 {
					continue
				}
				fmt.Fprintf(&b, "  task %d %v", k, status)
				if out, ok := s.Output(k); ok {
					fmt.Fprintf(&b, " %d %d %d %d on %d at %d for %d with %d of %d, %v", out.Winner, out.Size, out.Records, out.Checksum, out.Worker, out.Started, out.Millis, out.PeakKiB, out.Read, out.Second)
				}
				fmt.Fprintf(&b, " ended %d counts %v %v\n", failures.Ended, failures.Counts, failures.Last)
			}
		}
	}
	for _, id := range m.Workers() {
		fmt.Fprintf(&b, "worker %d %+v\n", id, *m.Worker(id))
	}
	tokens, machines, authorities := map[string]Token{}, map[string]Enrolment{}, map[uint64]Authority{}
	for _, t := range m.Access().Tokens() {
		tokens[t.ID] = *t
	}
	for _, e := range m.Access().Enrolments() {
		machines[e.Fingerprint] = *e
	}
	for _, a := range m.Access().Authorities() {
		authorities[a.Number] = a
	}
	quotas := map[string]Quota{}
	for _, q := range m.Access().Quotas().All() {
		quotas[q.User] = *q
	}
	retentions := map[string]Retention{}
	for _, r := range m.Access().Retentions().list() {
		retentions[r.User] = *r
	}
	fmt.Fprintf(&b, "%+v\n%+v\n%+v\n%+v\n%+v\n", tokens, machines, authorities, quotas, retentions)
	now, _ := m.Beyond(m.Time())
	later, _ := m.Beyond(m.Time() + 4000)
	fmt.Fprintf(&b, "not kept: %d, %d\n", now, later)
	b.WriteString(dumpLocks(m))
	return b.String()
}

// dumpFacts writes facts down as the model does.
func dumpFacts(facts []Fact) (lines []string) {
	kinds := [...]string{"submitted", "stage", "reopened", "died", "ending", "ended", "forgotten", "joined", "changed", "applied"} // as EventKind counts
	for i := range facts {
		f := &facts[i]
		if f.Kind == Audited {
			verdict := "done"
			if f.Audit.Verdict != "" {
				verdict = "refused"
			}
			lines = append(lines, fmt.Sprintf("at %d: %s %s %q", f.Time, auditText(f.Audit), verdict, f.Audit.Subject))
			continue
		}
		if f.Kind == LockGone {
			lines = append(lines, fmt.Sprintf("at %d: lost by user %q, %q", f.Time, f.User, f.Detail))
			continue
		}
		if f.Kind == WorkerQuarantined || f.Kind == WorkerReleased {
			lines = append(lines, fmt.Sprintf("at %d: worker %d, %v, quarantined %v: %q", f.Time, f.Worker, f.WorkerStatus, f.Kind == WorkerQuarantined, f.Detail))
			continue
		}
		about, status := fmt.Sprintf("job %d", f.Job), f.JobStatus.String()
		switch f.Kind {
		case StageStarted:
			about += " " + f.Stage
		case TaskDied:
			about = fmt.Sprintf("task %d/%s/%d on worker %d", f.Job, f.Stage, f.Task, f.Worker)
		case WorkerJoined, WorkerChanged:
			about, status = fmt.Sprintf("worker %d", f.Worker), f.WorkerStatus.String()
		case LockHeld, LockWaiting, LockGone, LockOver, PriorityChanged, JobSubmitted, TaskReopened, JobEnding, JobEnded, JobForgotten, RequestApplied, StageEnded, TaskLost, QuotasChanged, Audited, JobWaits, StageGrown, InputDue, WorkerQuarantined, WorkerReleased:
		}
		lines = append(lines, fmt.Sprintf("at %d: %s %s, %s, %q", f.Time, kinds[f.Kind], about, status, f.Detail))
	}
	return lines
}
