package state

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// modelLock is a request for locks. The model has a list of all of them, and looks at each pair.
type modelLock struct {
	id           LockID
	job          JobID
	user, holder string
	names        []LockName
	max          uint32
	fence        uint64
	since        int64
	cleanup      bool
	over         bool // its job has ended, and attempts of it may run
	priority     uint32
}

// overlap reports whether one name is the other, or lies above it.
func overlap(a, b LockName) bool {
	parts := func(n LockName) []string {
		return append(slices.DeleteFunc(strings.Split(n.Name, "/"), func(part string) bool { return part == "" }), "")
	}
	x, y := strings.Join(parts(a), "/"), strings.Join(parts(b), "/")
	return a.Data == b.Data && (strings.HasPrefix(x, y) || strings.HasPrefix(y, x))
}

func (l *modelLock) conflicts(names []LockName) bool {
	return slices.ContainsFunc(l.names, func(a LockName) bool {
		return slices.ContainsFunc(names, func(b LockName) bool { return overlap(a, b) && (!a.Shared || !b.Shared) })
	})
}

// waits is how many earlier requests conflict with l, and whether it must wait.
func (m *model) waits(l *modelLock) (n int, must bool) {
	pool := uint32(0)
	for _, earlier := range m.locks {
		if earlier.id >= l.id || !earlier.conflicts(l.names) {
			continue
		}
		n++
		if pool++; earlier.max != l.max {
			must = true
		}
	}
	return n, must || pool >= l.max
}

func (m *model) addLock(l *modelLock) *modelLock {
	m.lockID++
	l.id, l.since = m.lockID, m.time
	m.locks = append(m.locks, l)
	if _, must := m.waits(l); !must {
		m.grant(l)
	}
	return l
}

func (m *model) grant(l *modelLock) {
	m.lockFence = max(m.lockFence+1, uint64(m.index))
	l.fence, l.since = m.lockFence, m.time
}

func (m *model) dropLock(l *modelLock) {
	m.locks = slices.DeleteFunc(m.locks, func(o *modelLock) bool { return o == l })
}

func (m *model) lockOf(id JobID) *modelLock {
	if at := slices.IndexFunc(m.locks, func(l *modelLock) bool { return l.job == id && !l.over }); at >= 0 {
		return m.locks[at]
	}
	return nil
}

// leaveEnded ends the request of a job that has ended, unless attempts of it may run.
func (m *model) leaveEnded(j *modelJob, waited bool) {
	switch l := m.lockOf(j.id); {
	case l == nil:
	case waited || l.fence == 0 || !m.others:
		m.dropLock(l)
	default:
		l.over = true
	}
}

// leasable reports whether a task of a job may be leased, but for that of its commit stage.
func (j *modelJob) leasable() bool {
	for i, s := range j.stages {
		if s.spec.Role != RoleCommit && j.ready(i) {
			return true
		}
	}
	return false
}

// reclaim gives a job the request that is over of its last run.
func (m *model) reclaim(j *modelJob) bool {
	for _, l := range m.locks {
		if l.over && l.job == j.id && l.conflicts(j.wants(true)) {
			l.over = false
			return true
		}
	}
	return false
}

// grantLocks hands over what is free.
func (m *model) grantLocks() bool {
	var free []*modelLock
	for _, l := range m.locks {
		if _, must := m.waits(l); !must && l.fence == 0 {
			free = append(free, l)
		}
	}
	for _, l := range free {
		if !slices.Contains(m.locks, l) {
			continue
		}
		m.grant(l)
		if j := m.jobs[l.job]; j != nil && j.status == "waiting" {
			m.start(j)
		}
	}
	return len(free) > 0
}

// wants is what a job locks.
func (j *modelJob) wants(cleanup bool) (names []LockName) {
	output := j.spec.Output
	for _, n := range j.spec.Data {
		if !n.Shared {
			output = n.Name
		}
	}
	if !cleanup {
		names = slices.Clone(j.spec.Locks)
		for _, n := range j.spec.Data {
			names = append(names, LockName{Name: n.Name, Shared: true, Data: true})
		}
	}
	if !j.spec.Spool {
		names = append(names, LockName{Name: path.Clean(output), Data: true})
	}
	return names
}

// enter starts a job that only locks hold back, or makes it wait for them.
func (m *model) enter(j *modelJob) {
	names := j.wants(false)
	if m.level < 2 || len(names) == 0 {
		m.start(j)
		return
	}
	l := m.lockOf(j.id)
	if l == nil {
		l = m.addLock(&modelLock{job: j.id, user: j.spec.User, names: names, max: 1, priority: j.spec.Priority})
	}
	switch {
	case l.fence > 0:
		m.start(j)
	case j.spec.FailOnConflict && m.conflictText(j.spec.User, names, l.id, j.id) != "":
		j.err = "not run: " + m.conflictText(j.spec.User, names, l.id, j.id)
		m.end(j, "failed")
	default:
		m.postpone(j, l)
	}
}

// postpone forgets the input of a new job that waits for one that writes there.
func (m *model) postpone(j *modelJob, l *modelLock) {
	var reads []LockName
	for _, n := range j.wants(false) {
		if n.Data && n.Shared {
			reads = append(reads, n)
		}
	}
	if j.fence > 0 || j.spec.Input.Kind != InputFiles || j.spec.Input.Growing || len(j.spec.InputNames) == 0 || len(m.blockers(reads, l.id)) == 0 {
		return
	}
	spec := *j.spec
	spec.Deferred, spec.Input, spec.Stages = &Deferred{Split: spec.Input.SplitSize}, Input{Kind: InputNone, Tasks: 1}, slices.Clone(spec.Stages)
	for i := range spec.Stages {
		if s := &spec.Stages[i]; s.Role == RoleMap || s.Fitted {
			s.Tasks = 1
		}
	}
	j.spec = &spec
	j.stages = modelStages(&spec)
}

// start starts a job that holds its locks, unless its output holds something.
func (m *model) start(j *modelJob) {
	if by := m.overtaken(j); by != nil {
		j.err = fmt.Sprintf("not run: job %d has published in %q while this one waited: submit it again with --overwrite, or with another output",
			by.id, by.spec.Output)
		m.end(j, "failed")
		return
	}
	if j.spec.Deferred == nil {
		j.status = "active"
		m.recordReady(j)
	}
}

// overtaken returns a job that has published in the output of j since that was submitted.
func (m *model) overtaken(j *modelJob) (by *modelJob) {
	if m.level < 2 || j.spec.Spool || j.spec.Overwrite {
		return nil
	}
	for _, other := range m.jobs {
		above := len(path.Clean(other.spec.Output)) < len(path.Clean(j.spec.Output)) // if it is the same
		if other.status == "done" && other.ended > j.created && other.id != j.id && (by == nil || other.id < by.id) && m.sameOutput(j, other) &&
			(other.spec.NameParts != "" || !above) {
			by = other
		}
	}
	return by
}

func (*model) sameOutput(a, b *modelJob) bool {
	return overlap(LockName{Name: path.Clean(a.spec.Output)}, LockName{Name: path.Clean(b.spec.Output)})
}

// blockers are the requests that conflict with names, up to a number: those that hold first.
func (m *model) blockers(names []LockName, before LockID) (list []*modelLock) {
	for _, held := range []bool{true, false} {
		for _, l := range m.locks {
			if l.id < before && (l.fence > 0) == held && l.conflicts(names) {
				list = append(list, l)
			}
		}
	}
	return list
}

// conflictText says which request of another job is in the way of one.
func (m *model) conflictText(user string, names []LockName, before LockID, own JobID) string {
	list := slices.DeleteFunc(m.blockers(names, before), func(l *modelLock) bool { return l.job == own && own > 0 })
	if len(list) == 0 {
		return ""
	}
	return fmt.Sprintf("%s, which conflicts with what this job locks, %s; wait for it, or leave out --on-conflict fail", m.standing(list[0], user, names), namesText(names))
}

// standing says what a request holds or waits for.
func (m *model) standing(l *modelLock, user string, wants []LockName) string {
	verb := "holds"
	if l.fence == 0 {
		verb = "waits for"
	}
	var names []LockName
	if l.user == user {
		for _, n := range l.names {
			if (&modelLock{names: wants}).conflicts([]LockName{n}) {
				names = append(names, n)
			}
		}
		return fmt.Sprintf("%s %s %s", l.owner(), verb, namesText(names))
	}
	for _, n := range wants {
		if l.conflicts([]LockName{n}) {
			names = append(names, n)
		}
	}
	owner := l.owner()
	if l.job == 0 {
		owner = fmt.Sprintf("user %q", l.user)
	}
	return fmt.Sprintf("%s %s %s", owner, verb, namesText(names))
}

// owner describes the job or the client.
func (l *modelLock) owner() string {
	switch {
	case l.over:
		return fmt.Sprintf("job %d, which has ended and whose last attempts may still run,", l.job)
	case l.job > 0:
		return fmt.Sprintf("job %d", l.job)
	case l.user != "":
		return fmt.Sprintf("%q of user %q", l.holder, l.user)
	}
	return fmt.Sprintf("%q", l.holder)
}

// cleanNames returns names without empty components, sorted; ok is false if one is empty, or there twice.
func cleanNames(names []LockName) (list []LockName, ok bool) {
	for _, n := range names {
		n.Name = strings.Trim(path.Clean("/"+n.Name), "/")
		if n.Name == "" || slices.ContainsFunc(list, func(o LockName) bool { return o.Name == n.Name }) {
			return nil, false
		}
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b LockName) int { return strings.Compare(a.Name, b.Name) })
	return list, len(list) > 0
}

// lock carries out operations.
func (m *model) lock(key string, ops []LockOp) {
	text := ""
	m.released = nil
	for _, op := range ops {
		text += " " + m.lockOp(op)
		m.release()
	}
	m.answer(key, "locks%s", text)
}

func (m *model) lockOp(op LockOp) string {
	names, ok := cleanNames(op.Names)
	most := max(op.Max, 1)
	if !ok || !op.Release && (op.TTLMS < 1000 || most > 1 && slices.ContainsFunc(names, func(n LockName) bool { return n.Shared })) {
		return "refused"
	}
	mine := func(l *modelLock) bool { return l.job == 0 && l.user == op.User && l.holder == op.Holder }
	var same *modelLock
	for _, l := range slices.Clone(m.locks) {
		has := func(n LockName) bool {
			return slices.ContainsFunc(names, func(o LockName) bool { return o.Name == n.Name })
		}
		switch {
		case !mine(l) || !slices.ContainsFunc(l.names, has):
		case op.Release:
			what := "waiting"
			if l.fence > 0 {
				what = fmt.Sprintf("fence %d", l.fence)
			}
			m.released = append(m.released, fmt.Sprintf("the lock of %s on %s, %s", l.owner(), namesText(l.names), what))
			m.dropLock(l)
		case same == nil:
			same = l
		}
	}
	if op.Release {
		return "released"
	}
	switch {
	case same != nil && (same.max != most || !slices.Equal(same.names, names)):
		return "refused"
	case same != nil && same.fence == 0 && op.NoWait:
		m.dropLock(same)
		return "refused"
	case same != nil:
		return fmt.Sprintf("%d:%d", same.id, same.fence)
	}
	for _, l := range m.locks {
		if mine(l) && l.conflicts(names) {
			return "refused"
		}
	}
	l := m.addLock(&modelLock{user: op.User, holder: op.Holder, names: names, max: most})
	if l.fence == 0 && op.NoWait {
		m.dropLock(l)
		return "refused"
	}
	return fmt.Sprintf("%d:%d", l.id, l.fence)
}

// expire ends requests of clients; with waiting, only those that wait.
func (m *model) expire(key string, ids []LockID, waiting bool) {
	for _, id := range ids {
		for _, l := range slices.Clone(m.locks) {
			if l.id != id || l.job != 0 && !l.over || waiting && l.fence > 0 {
				continue
			}
			if m.dropLock(l); l.fence > 0 && !l.over {
				m.facts = append(m.facts, fmt.Sprintf("at %d: lost by user %q, %q", m.time, l.user, fmt.Sprintf("the lock on %s of %s is lost: it was not renewed for 30 s", namesText(l.names), l.owner())))
			}
		}
		m.release()
	}
	m.answer(key, "job 0")
}

// lockLive gives the jobs that run their locks.
func (m *model) lockLive() {
	for id := JobID(1); id <= m.made; id++ {
		if j := m.jobs[id]; j != nil && !j.over && len(j.wants(false)) > 0 {
			m.addLock(&modelLock{job: id, user: j.spec.User, names: j.wants(false), max: 1, priority: j.spec.Priority})
		}
	}
}

// highest is the priority of a request, or of those that wait for it, directly or not.
func (m *model) highest(l *modelLock) uint32 {
	top := l.priority
	for _, later := range m.locks {
		if later.id > l.id && later.conflicts(l.names) {
			top = max(top, m.highest(later))
		}
	}
	return top
}

func (m *model) dumpLocks() string {
	var b strings.Builder
	for _, l := range m.locks {
		state := fmt.Sprintf("fence %d", l.fence)
		if n, must := m.waits(l); must {
			state = fmt.Sprintf("waits for %d", n)
		}
		if l.over {
			state += ", over"
		} else if l.job > 0 {
			state += fmt.Sprintf(", priority %d", m.highest(l))
		}
		fmt.Fprintf(&b, "request %d of %s: %s, max %d, since %d %s\n", l.id, l.owner(), lockNamesText(l.names), l.max, l.since, state)
	}
	return b.String()
}
