package state

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"path"
	"slices"
	"strings"
)

// Locks. A request of a job or a client names one or more locks, is granted as a whole or waits as a whole, and holds nothing while it waits.
// The transitions of a request:
//
//	request | event                                          | becomes
//	-       | acquire, no earlier conflict                    | held; its fence is the log position of the grant
//	-       | acquire, conflict                               | waiting, or refused
//	waiting | the last earlier conflict is gone               | held
//	waiting | withdrawn, expired, its job stopped             | gone
//	held    | released, expired, its job ended                | gone
//	held    | its job ended, and attempts of it may still run | held, and over
//	over    | its leader knows that none of them runs         | gone
//	over    | its job is stopped                              | held by the job
//	any     | acquired again by the same holder               | as it was
//
// When a lock expires is up to the leader, which hears of renewals. A job locks its data and its names from when it could start until it has ended, and none of its
// attempts runs any more: that, too, is known by the leader alone.

// LockID numbers requests for locks from 1 in the order of the log, which is the order in which they are granted.
type LockID uint64

// LockName is a name that a request locks. Its components are separated by slashes; it conflicts with those above and below it.
type LockName struct {
	Name   string
	Shared bool
	Data   bool // a location of inputs or outputs, not a name that users choose
}

func (n *LockName) space() lockSpace {
	if n.Data {
		return dataSpace
	}
	return userSpace
}

// Conflicts reports whether two names can only be locked one after the other.
func (n *LockName) Conflicts(other *LockName) bool {
	if n.Data != other.Data || n.Shared && other.Shared {
		return false
	}
	a, b := joinParts(n.Name), joinParts(other.Name)
	return a == b || a == "" || b == "" || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

// above reports whether one location is a folder above another.
func above(folder, other LockName) bool {
	a, b := joinParts(folder.Name), joinParts(other.Name)
	return a != b && (a == "" || strings.HasPrefix(b, a+"/"))
}

// Lock is a request for locks, held or waiting. It belongs to the machine: readers must not change it.
type Lock struct {
	ID           LockID
	Job          JobID // 0: of a client
	User, Holder string
	Note         string
	Max          uint32 // that hold it together
	TTLMS        uint64 // 0: of a job, which does not expire
	Fence        uint64 // 0: it waits
	Since        int64  // when it was granted, or else was added; Unix ms
	// Over says that its job has ended, while attempts of it may still run: they are being stopped. The job may be forgotten by then, and may have another request.
	Over bool

	cleanup    bool   // of a job that is stopped after its end: of its output alone
	priority   uint32 // of the job
	inherited  uint32
	hard, soft uint32 // earlier requests that conflict: with another Max, and with the same
	seen       uint64
	entries    []pathEntry
	next, prev *Lock
}

// Bounds of locks.
const (
	LockNameMax      = 1024 // bytes
	LockNamesMax     = 64   // of a request of a client, and names that users choose of a job
	LockHolderMax    = 256  // bytes
	LockNoteMax      = 256  // bytes
	LockMaxMax       = 1 << 20
	LockTTLMinMS     = 1000
	LockTTLMaxMS     = 60 * 60 * 1000
	LockRequestsMax  = 100_000 // of clients
	LockOperationMax = 1000    // of a command
	LockDataMax      = 1001    // locations of a job
)

// Names returns what it locks.
func (l *Lock) Names() []LockName {
	names := make([]LockName, len(l.entries))
	for i := range l.entries {
		names[i] = l.entries[i].lockName()
	}
	return names
}

func (e *pathEntry) lockName() LockName {
	root := e.node
	for root.parent != nil {
		root = root.parent
	}
	name := LockName{Name: e.node.name(), Shared: e.use == useShared, Data: root.part == dataRoot}
	if name.Data {
		name.Name = locationOf(name.Name)
	}
	return name
}

// dataRoot is the part of the root of the locations.
const dataRoot = "data"

// locationOf is the location of the joined components of one.
func locationOf(parts string) string {
	if scheme, rest, ok := strings.Cut(parts, ":/"); ok && !strings.Contains(scheme, "/") {
		return scheme + "://" + rest
	}
	return "/" + parts
}

// Held reports whether it holds its names.
func (l *Lock) Held() bool { return l.Fence != 0 }

// Place is how many earlier requests conflict with it.
func (l *Lock) Place() uint64 { return uint64(l.hard) + uint64(l.soft) }

// count is the count of an earlier request that conflicts with l.
func (l *Lock) count(earlier *Lock) *uint32 {
	if l.Max == earlier.Max {
		return &l.soft
	}
	return &l.hard
}

// free reports whether too few earlier requests conflict with it to make it wait.
func (l *Lock) free() bool { return l.hard == 0 && l.soft < l.Max }

func (l *Lock) sameOwner(other *Lock) bool { return l.User == other.User && l.Holder == other.Holder }

// ownerSum is the key of a name of a client in lockTable.byOwner.
func ownerSum(user, holder, name string) uint64 {
	h := fnv.New64a()
	for _, text := range []string{user, holder, name} {
		_, _ = h.Write([]byte(text))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

// text describes the owner.
func (l *Lock) text() string {
	switch {
	case l.Over:
		return fmt.Sprintf("job %d, which has ended and whose last attempts may still run,", l.Job)
	case l.Job != 0:
		return fmt.Sprintf("job %d", l.Job)
	case l.User != "":
		return fmt.Sprintf("%q of user %q", l.Holder, l.User)
	}
	return fmt.Sprintf("%q", l.Holder)
}

// Lock returns a request, or nil.
func (m *Machine) Lock(id LockID) *Lock { return m.locks.byID[id] }

// LockOf returns the request of a job that has not ended, or nil.
func (m *Machine) LockOf(id JobID) *Lock { return m.locks.byJob[id] }

// Locks yields all requests in their order.
func (m *Machine) Locks() func(yield func(*Lock) bool) {
	return func(yield func(*Lock) bool) {
		for l := m.locks.first; l != nil; l = l.next {
			if !yield(l) {
				return
			}
		}
	}
}

// LockedBy returns the request of a holder with exactly these names, or nil.
func (m *Machine) LockedBy(user, holder string, names []LockName) *Lock {
	names, err := CleanLocks(names)
	if err != nil {
		return nil
	}
	if l := m.locks.ownedAt(&Lock{User: user, Holder: holder}, names); l != nil && l.hasNames(names) {
		return l
	}
	return nil
}

// hasNames reports whether it has exactly these names, in any mode.
func (l *Lock) hasNames(names []LockName) bool {
	return slices.EqualFunc(l.Names(), names, func(a, b LockName) bool { return a.Name == b.Name })
}

// LockAt returns a request of a holder that has one of these names; nil: there is none. With any user, also one of another user.
func (m *Machine) LockAt(user, holder string, names []LockName, anyUser bool) (found *Lock) {
	names, err := CleanLocks(names)
	if err != nil {
		return nil
	}
	if found = m.locks.ownedAt(&Lock{User: user, Holder: holder}, names); found != nil || !anyUser {
		return found
	}
	m.locks.against(names, nil, func(l *Lock) {
		has := func(n LockName) bool {
			return slices.ContainsFunc(names, func(o LockName) bool { return o.Name == n.Name && !n.Data })
		}
		if l.Job == 0 && l.Holder == holder && (found == nil || l.ID < found.ID) && slices.ContainsFunc(l.Names(), has) {
			found = l
		}
	})
	return found
}

// Conflicts returns the first n of the requests that conflict with names, held before waiting, and how many do. A request of own counts only those
// before it.
func (m *Machine) Conflicts(names []LockName, own *Lock, n int) (list []*Lock, all int) {
	m.locks.against(names, own, func(l *Lock) {
		if own == nil || l.ID < own.ID {
			list = append(list, l)
		}
	})
	slices.SortFunc(list, func(a, b *Lock) int {
		if a.Held() != b.Held() {
			if a.Held() {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return list[:min(n, len(list))], len(list)
}

// LocksAt returns the requests that have exactly this name, in any mode, in their order.
func (m *Machine) LocksAt(name LockName) (list []*Lock) {
	n, exact := m.locks.roots[name.space()].find(name.Name)
	for use := useExclusive; exact && use < useOutput; use++ {
		for e := n.entries[use].first; e != nil; e = e.next {
			list = append(list, e.lock)
		}
	}
	slices.SortFunc(list, func(a, b *Lock) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Priority is the priority of a job: its own, or a higher one of jobs that wait for its locks.
func (m *Machine) Priority(job *Job) uint32 {
	if l := m.locks.byJob[job.ID]; l != nil {
		return max(job.Spec.Priority, l.inherited)
	}
	return job.Spec.Priority
}

// LockOp is an operation on locks: an acquire, or a release.
type LockOp struct {
	Release      bool
	User, Holder string
	Names        []LockName // not Data
	Max          uint32     // 0: 1
	TTLMS        uint64
	NoWait       bool // it is refused instead of waiting
	Note         string
}

// LockAnswer is the answer to a LockOp: ID and Fence of an acquire, Fence 0 if it waits; or Err, and of one that may not wait what is in its way.
type LockAnswer struct {
	ID    LockID
	Fence uint64
	Err   *Rejection

	Before []LockCopy // the first ones, held before waiting
	Place  int        // how many there are
}

// LockCopy is a request as it was at a time: without what it is linked with.
type LockCopy struct {
	Lock  Lock
	Names []LockName
}

// Copy copies a request.
func (l *Lock) Copy() LockCopy {
	return LockCopy{
		Lock: Lock{
			ID: l.ID, Job: l.Job, User: l.User, Holder: l.Holder, Note: l.Note, Max: l.Max, TTLMS: l.TTLMS, Fence: l.Fence, Since: l.Since, Over: l.Over, hard: l.hard, soft: l.soft,
		},
		Names: l.Names(),
	}
}

// lockAnswerBefore bounds LockAnswer.Before.
const lockAnswerBefore = 10

// LockReason is why a request of a client has gone.
type LockReason uint8

// The reasons.
const (
	LockReleased LockReason = iota + 1
	LockExpired
	LockWithdrawn
)

func (r LockReason) String() string {
	return nameOf(r, "reason", "", "released", "expired", "withdrawn")
}

// CleanLocks returns names that users choose as the state has them: without empty components, sorted.
func CleanLocks(names []LockName) ([]LockName, *Rejection) {
	if len(names) == 0 {
		return nil, nil
	}
	list := make([]LockName, 0, len(names))
	for _, n := range names {
		if len(n.Name) > LockNameMax {
			return nil, reject(TooLarge, "the name of a lock has %d bytes; %d is the most", len(n.Name), LockNameMax)
		}
		n.Name = joinParts(n.Name)
		if n.Name == "" {
			return nil, reject(TooLarge, "the name of a lock is empty: name at least one component, such as licence or licence/matlab")
		}
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b LockName) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(list); i++ {
		if list[i].Name == list[i-1].Name {
			return nil, reject(TooLarge, "the lock %q is named twice", list[i].Name)
		}
	}
	return list, nil
}

func joinParts(name string) string {
	if !strings.HasPrefix(name, "/") && !strings.HasSuffix(name, "/") && !strings.Contains(name, "//") {
		return name
	}
	var parts []string
	for part := range pathParts(name) {
		parts = append(parts, part)
	}
	return strings.Join(parts, "/")
}

// Check returns what is wrong with an operation, whose names are those of CleanLocks.
func (op *LockOp) Check() *Rejection {
	switch {
	case op.Holder == "" || len(op.Holder) > LockHolderMax:
		return reject(TooLarge, "the holder of a lock has %d bytes; want 1 to %d", len(op.Holder), LockHolderMax)
	case len(op.Names) == 0 || len(op.Names) > LockNamesMax:
		return reject(TooLarge, "a request of %d locks; want 1 to %d", len(op.Names), LockNamesMax)
	case op.Release:
		return nil
	case op.TTLMS < LockTTLMinMS || op.TTLMS > LockTTLMaxMS:
		return reject(TooLarge, "a lock is lost when it is not renewed for %d ms; want %d to %d", op.TTLMS, LockTTLMinMS, LockTTLMaxMS)
	case op.Max > LockMaxMax:
		return reject(TooLarge, "at most %d can hold a lock together, not %d", LockMaxMax, op.Max)
	case len(op.Note) > LockNoteMax:
		return reject(TooLarge, "the note of a lock has %d bytes; %d is the most", len(op.Note), LockNoteMax)
	case op.Max > 1 && slices.ContainsFunc(op.Names, func(n LockName) bool { return n.Shared }):
		return reject(Conflict, "a lock that %d hold together is exclusive: leave out shared, or max", op.Max)
	}
	return nil
}

// lock carries out operations in their order. It returns their answers and, for the audit record, which requests it has ended.
func (m *Machine) lock(c *command, out *Result) (answers []LockAnswer, released string) {
	answers = make([]LockAnswer, len(c.locks))
	var ended []string
	for i := range c.locks {
		op := &c.locks[i]
		names, err := CleanLocks(op.Names)
		if err == nil {
			err = op.Check()
		}
		switch {
		case err != nil:
			answers[i].Err = err
		case op.Release:
			owner := &Lock{User: op.User, Holder: op.Holder}
			for l := m.locks.ownedAt(owner, names); l != nil; l = m.locks.ownedAt(owner, names) {
				if c.by != nil {
					ended = append(ended, l.account())
				}
				m.unlock(l, LockReleased, out)
			}
		default:
			answers[i] = m.acquire(op, names, out)
		}
		m.releaseOthers(out)
	}
	return answers, strings.Join(ended, "; ")
}

// account is what an audit record says of the request of a client.
func (l *Lock) account() string {
	what := "waiting"
	if l.Held() {
		what = fmt.Sprintf("fence %d", l.Fence)
	}
	return fmt.Sprintf("the lock of %s on %s, %s", l.text(), shorten(namesText(l.Names())), what)
}

// acquire adds the request of a client, unless there is one of the same holder for the same names. A holder has one request for a name.
func (m *Machine) acquire(op *LockOp, names []LockName, out *Result) LockAnswer {
	l := &Lock{User: op.User, Holder: op.Holder, Note: op.Note, Max: max(op.Max, 1), TTLMS: op.TTLMS, Since: m.time}
	if have := m.locks.ownedAt(l, names); have != nil {
		switch {
		case have.Max != l.Max || !slices.Equal(have.Names(), names):
			return LockAnswer{Err: reject(OwnConflict, "holder %q has requested %s already, with other names, in another mode or with another max: release that first, or use another holder",
				op.Holder, namesText(have.Names()))}
		case !have.Held() && op.NoWait:
			answer := m.refused(have)
			m.unlock(have, LockWithdrawn, out)
			return answer
		}
		return LockAnswer{ID: have.ID, Fence: have.Fence}
	}
	var self *Lock
	m.locks.against(names, nil, func(other *Lock) {
		if other.Job == 0 && other.sameOwner(l) {
			self = other
		}
	})
	switch {
	case self != nil:
		return LockAnswer{Err: reject(OwnConflict, "holder %q has requested %s, which conflicts: it would wait for itself. Release that first, request all names at "+
			"once, or use another holder", op.Holder, namesText(self.Names()))}
	case m.locks.clients >= LockRequestsMax:
		return LockAnswer{Err: reject(OverQuota, "there are %d requests for locks, which is the most: try again later", m.locks.clients)}
	}
	m.locks.lastID++
	l.ID = m.locks.lastID
	m.locks.add(l, names)
	switch {
	case l.free():
		m.locks.grant(l, m.index, m.time)
		out.Events = append(out.Events, Event{Kind: LockHeld, Lock: l.ID})
	case op.NoWait:
		answer := m.refused(l)
		m.locks.remove(l)
		return answer
	default:
		out.Events = append(out.Events, Event{Kind: LockWaiting, Lock: l.ID})
	}
	return LockAnswer{ID: l.ID, Fence: l.Fence}
}

// refused is the answer to a request that is not granted and may not wait.
func (m *Machine) refused(l *Lock) LockAnswer {
	names := l.Names()
	list, n := m.Conflicts(names, l, lockAnswerBefore)
	answer := LockAnswer{Err: reject(Conflict, "%s: not free: %s", namesText(names), m.lockStanding(list[0], l.User, names)), Place: n}
	for _, other := range list {
		answer.Before = append(answer.Before, other.Copy())
	}
	return answer
}

// lockStanding says which names, in conflict with others that a user wants, a request holds or waits for. Of the request of another user it tells what the list of
// locks does: no holder, and only names that the user has given.
func (m *Machine) lockStanding(l *Lock, user string, wants []LockName) string {
	owner, text, names, others := l.User, l.text(), l.Names(), wants
	if owner != user {
		names, others = wants, names
		if l.Job == 0 {
			text = fmt.Sprintf("user %q", owner)
		}
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n LockName) bool {
		return !slices.ContainsFunc(others, func(o LockName) bool { return n.Conflicts(&o) })
	})
	verb := "waits for"
	if l.Held() {
		verb = "holds"
	}
	return fmt.Sprintf("%s %s %s", text, verb, namesText(names))
}

// namesText quotes the first few of a list of names.
func namesText(names []LockName) string {
	const few = 3
	var parts []string
	for _, n := range names[:min(few, len(names))] {
		parts = append(parts, fmt.Sprintf("%q", n.Name))
	}
	if more := len(names) - few; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}

// unlock ends the request of a client, or of a job that is over. Those that hold their names then are in granted, for releaseOthers.
func (m *Machine) unlock(l *Lock, why LockReason, out *Result) {
	m.locks.remove(l)
	e := Event{Kind: LockGone, Job: l.Job, Lock: l.ID, Reason: why, User: l.User}
	if why == LockExpired && l.Held() && !l.Over {
		e.Message = fmt.Sprintf("the lock on %s of %s is lost: it was not renewed for %d s", namesText(l.Names()), l.text(), l.TTLMS/1000)
		m.record(e, out)
		return
	}
	out.Events = append(out.Events, e)
}

// expire ends requests: of clients, those of which the leader has not heard for their time to live, or with waiting, one whose wait is over, unless
// it was granted meanwhile; and those that are over, whose attempts have ended.
func (m *Machine) expire(c *command, out *Result) {
	for _, id := range c.expired {
		l := m.locks.byID[id]
		switch {
		case l == nil || l.Job != 0 && (!l.Over || c.waiting):
		case l.Over:
			m.unlock(l, LockReleased, out)
		case !c.waiting:
			m.unlock(l, LockExpired, out)
		case !l.Held():
			m.unlock(l, LockWithdrawn, out)
		}
		m.releaseOthers(out)
	}
}

// raiseFence makes all later fencing numbers larger than floor.
func (m *Machine) raiseFence(floor uint64) { m.locks.fence = max(m.locks.fence, floor) }

// lockedNames are the names that a job locks: its data, and those that its user has chosen.
func (s *Spec) lockedNames() []LockName {
	names := slices.Clone(s.Locks)
	for _, n := range s.Data {
		n.Data = true
		names = append(names, n)
	}
	if !s.Spool && !slices.ContainsFunc(s.Data, func(n LockName) bool { return !n.Shared }) {
		names = append(names, s.outputName())
	}
	return names
}

// outputName is the name of the output of a job.
func (s *Spec) outputName() LockName {
	for _, n := range s.Data {
		if !n.Shared {
			return LockName{Name: n.Name, Data: true}
		}
	}
	return LockName{Name: path.Clean(s.Output), Data: true}
}

// newJobLock adds the request of a job; cleanup: only for its output.
func (m *Machine) newJobLock(job *Job, cleanup bool) *Lock {
	m.locks.lastID++
	l := &Lock{ID: m.locks.lastID, Job: job.ID, Max: 1, Since: m.time, cleanup: cleanup}
	m.addJobLock(l, job)
	if l.free() {
		m.locks.grant(l, m.index, m.time)
	}
	return l
}

func (m *Machine) addJobLock(l *Lock, job *Job) {
	names := job.Spec.lockedNames()
	if l.cleanup {
		names = []LockName{job.Spec.outputName()}
	}
	l.User, l.priority, l.inherited = job.Spec.User, job.Spec.Priority, job.Spec.Priority
	m.locks.add(l, names)
}

// enter starts a job that nothing but its locks holds back, if they are free. Otherwise it waits for them, or fails.
func (m *Machine) enter(job *Job, out *Result) {
	if m.level < 2 || len(job.Spec.lockedNames()) == 0 {
		m.begin(job, out)
		return
	}
	l := m.locks.byJob[job.ID]
	if l == nil {
		l = m.newJobLock(job, false)
	}
	switch {
	case l.Held():
		m.begin(job, out)
	default:
		if job.Spec.FailOnConflict {
			if err := m.inTheWay(job); err != nil {
				job.Error = "not run: " + err.Message
				m.endJob(job, LocksRefused, out)
				return
			}
		}
		m.postpone(job, l)
		out.Events = append(out.Events, Event{Kind: LockWaiting, Job: job.ID, Lock: l.ID})
	}
}

// postpone lets the input of a job be planned again when it holds its locks, if it waits for a job that writes there: that was submitted while the input
// was listed.
func (m *Machine) postpone(job *Job, l *Lock) {
	if job.Fence > 0 || job.Spec.Input.Kind != InputFiles || job.Spec.Input.Growing || len(job.Spec.InputNames) == 0 {
		return
	}
	reads := slices.DeleteFunc(job.Spec.lockedNames(), func(n LockName) bool { return !n.Data || !n.Shared })
	if list, _ := m.Conflicts(reads, l, 1); len(list) == 0 {
		return
	}
	spec := *job.Spec
	m.inputs -= spec.Input.BlockBytes()
	spec.Deferred, spec.Input = &Deferred{Split: cmp.Or(spec.SplitMax, spec.Input.SplitSize)}, Input{Kind: InputNone, Tasks: 1}
	spec.Stages = slices.Clone(spec.Stages)
	for i := range spec.Stages {
		if s := &spec.Stages[i]; s.Role == RoleMap || s.Fitted {
			s.Tasks = 1
		}
	}
	job.Spec, job.Stages = &spec, newStages(&spec)
}

// begin starts a job that holds its locks.
func (m *Machine) begin(job *Job, out *Result) {
	if id := m.Overtaken(job); id != 0 {
		job.Error = "not run: " + m.overtakenBy(id)
		m.endJob(job, LocksRefused, out)
		return
	}
	if job.Spec.Deferred != nil {
		out.Events = append(out.Events, Event{Kind: InputDue, Job: job.ID})
		return
	}
	m.moveJob(job, Opened)
	m.startReady(job, out)
}

func (m *Machine) overtakenBy(id JobID) string {
	return fmt.Sprintf("job %d has published in %q while this one waited: submit it again with --overwrite, or with another output", id, m.jobs[id].Spec.Output)
}

// Overtaken returns a job that has published in the output of a job since that was submitted; 0: there is none, or the job may replace it. The job does
// not start then, and neither does its retry. Parts in a folder above that output are not in it, unless a user has named them.
func (m *Machine) Overtaken(job *Job) JobID {
	if m.level < 2 || job.Spec.Spool || job.Spec.Overwrite {
		return 0
	}
	return m.published(job, func(other *Job) bool {
		return other.Ended > job.Created && other.ID != job.ID && (other.Spec.NameParts != "" || !above(other.Spec.outputName(), job.Spec.outputName()))
	})
}

// leave ends the request of a job that runs no attempts, if it has one.
func (m *Machine) leave(job *Job) {
	if l := m.locks.byJob[job.ID]; l != nil {
		m.locks.remove(l)
	}
}

// leaveEnded ends the request of a job that has ended, if it has one: at once, unless attempts of it may still run.
func (m *Machine) leaveEnded(job *Job, out *Result) {
	l := m.locks.byJob[job.ID]
	if l == nil || !l.Held() || !m.others {
		m.leave(job)
		return
	}
	m.locks.setOver(l, true)
	out.Events = append(out.Events, Event{Kind: LockOver, Job: job.ID, Lock: l.ID})
}

// leasable reports whether tasks of a job may be leased, but for that of the commit stage, whose end is the job's.
func (j *Job) leasable() bool {
	for i, s := range j.Stages {
		if s.Role != RoleCommit && j.Ready(i) {
			return true
		}
	}
	return false
}

// reclaim gives the request of a job's last run, which is over, back to the job, to remove or publish what is in its output; false: there is none.
func (m *Machine) reclaim(job *Job) bool {
	var over *Lock
	m.locks.against([]LockName{job.Spec.outputName()}, nil, func(l *Lock) {
		if l.Over && l.Job == job.ID {
			over = l
		}
	})
	if over != nil {
		over.priority, over.inherited = job.Spec.Priority, job.Spec.Priority // no priority is kept of one that is over
		m.locks.setOver(over, false)
	}
	return over != nil
}

// lockCleanup locks the output of a job that is to be stopped, unless it is locked, or refuses that: nothing is removed or published there while
// others use it.
func (m *Machine) lockCleanup(job *Job) *Rejection {
	if l := m.locks.byJob[job.ID]; m.level < 2 || job.Spec.Spool || l != nil && l.Held() {
		return nil
	}
	m.leave(job)
	if m.reclaim(job) {
		return nil
	}
	if first := m.locks.earliest([]LockName{job.Spec.outputName()}); first != nil {
		return reject(Conflict, "what job %d has left in its output %q cannot be removed while %s: wait for it, then stop the job", job.ID, job.Spec.Output,
			m.lockStanding(first, job.Spec.User, []LockName{job.Spec.outputName()}))
	}
	m.newJobLock(job, true)
	return nil
}

// inTheWay names what holds, or waits for, what a job would lock; nil: nothing does.
func (m *Machine) inTheWay(job *Job) *Rejection {
	names := job.Spec.lockedNames()
	list, _ := m.Conflicts(names, m.locks.byJob[job.ID], math.MaxInt)
	list = slices.DeleteFunc(list, func(l *Lock) bool { return l.Job == job.ID }) // it has run before, and is over
	if len(list) == 0 {
		return nil
	}
	return reject(Conflict, "%s, which conflicts with what this job locks, %s; wait for it, or leave out --on-conflict fail", m.lockStanding(list[0], job.Spec.User, names), namesText(names))
}

// grantLocks hands over what the last commands have released. Jobs that hold their locks start.
func (m *Machine) grantLocks(out *Result) {
	granted := m.locks.granted
	m.locks.granted = nil
	slices.SortFunc(granted, func(a, b *Lock) int { return cmp.Compare(a.ID, b.ID) })
	for _, l := range granted {
		if m.locks.byID[l.ID] != l || l.Held() { // it went, or was granted before
			continue
		}
		m.locks.grant(l, m.index, m.time)
		out.Events = append(out.Events, Event{Kind: LockHeld, Job: l.Job, Lock: l.ID})
		if job := m.jobs[l.Job]; job != nil && job.Status == JobWaiting {
			m.begin(job, out)
		}
	}
}

// lockLive gives the jobs that run their locks, when the feature level allows them. They do not conflict: each has an output of its own.
func (m *Machine) lockLive() {
	for _, id := range m.live {
		if job := m.jobs[id]; job.Status != JobWaiting && len(job.Spec.lockedNames()) > 0 {
			m.newJobLock(job, false)
		}
	}
}

// Fence is the last fencing number that was given.
func (m *Machine) Fence() uint64 { return m.locks.fence }

// LocksAny reports whether a job locks something.
func (s *Spec) LocksAny() bool {
	return len(s.Locks)+len(s.Data) > 0 || !s.Spool
}
