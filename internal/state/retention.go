package state

import (
	"cmp"
	"slices"
	"strings"
)

// Retention bounds which jobs are kept after their end: of a user, or of Everyone, which is all jobs together. Zero values bound nothing. A
// pinned job is kept, and does not count.
type Retention struct {
	User  string
	Jobs  uint32
	ForMS uint64 // since their end
	Bytes uint64 // of results in the spool; one job is kept however large
}

// Retentions are the retention settings. They never change.
type Retentions struct{ table[Retention] }

// Bounds of retention.
const (
	JobsKept       = 1000    // if Everyone's does not say it
	JobsKeptMax    = 100_000 // the state is in memory, and each snapshot has all of it
	pinnedMax      = 100     // jobs of a user
	retentionsMax  = 1000
	retentionMSMax = 100 * 365 * 24 * 60 * 60 * 1000
)

// Everyone returns what holds for all jobs together.
func (r *Retentions) Everyone() Retention {
	all := Retention{User: Everyone}
	if set := r.get(Everyone); set != nil {
		all = *set
	}
	all.Jobs = cmp.Or(all.Jobs, JobsKept)
	return all
}

// Users returns those of users, by user.
func (r *Retentions) Users() []*Retention {
	return slices.DeleteFunc(r.list(), func(of *Retention) bool { return of.User == Everyone })
}

// list returns the settings, by user.
func (r *Retentions) list() []*Retention {
	return r.sorted(func(a, b *Retention) int { return strings.Compare(a.User, b.User) })
}

// setRetention sets, or with nothing but the user removes, a retention.
func (a *Access) setRetention(r Retention) *Rejection {
	switch {
	case r.User == "" || len(r.User) > quotaUserMax:
		return reject(TooLarge, "a retention is of a user, whose name has at most %d bytes, or of %q", quotaUserMax, Everyone)
	case r.Jobs > JobsKeptMax:
		return reject(TooLarge, "at most %d jobs can be kept", JobsKeptMax)
	case r.ForMS > retentionMSMax:
		return reject(TooLarge, "jobs can be kept for 100 years at most; without a time, they are kept as long as the other bounds allow")
	case a.retentions.size >= retentionsMax && a.retentions.get(r.User) == nil:
		return reject(Conflict, "there are %d retentions, which is the most: remove some", retentionsMax)
	}
	value := &r
	if r == (Retention{User: r.User}) {
		value = nil
	}
	a.retentions.table = a.retentions.with(r.User, value)
	return nil
}

// pin keeps an ended or a live job whatever the retention is, or ends that.
func (m *Machine) pin(job *Job, pinned bool) *Rejection {
	switch {
	case job.Pinned == pinned:
		return nil
	case pinned && m.pinned[job.Spec.User] >= pinnedMax:
		return reject(Conflict, "%d jobs of the user are pinned, which is the most: 'bridgefour job keep N --undo' ends that of one", pinnedMax)
	case pinned && job.Spec.Input.BlockBytes() >= StageBytes:
		return reject(Conflict, "job %d cannot be pinned: the list of its inputs takes %d bytes of at most %d", job.ID,
			job.Spec.Input.BlockBytes(), StageBytes-1)
	}
	if job.Status.Ended() { // snapshots share it
		m.retain(job, -1)
		job = job.clone()
		m.jobs[job.ID] = job
	}
	job.Pinned = pinned
	if pinned {
		m.pinned[job.Spec.User]++
	} else if m.pinned[job.Spec.User]--; m.pinned[job.Spec.User] == 0 {
		delete(m.pinned, job.Spec.User)
	}
	if job.Status.Ended() {
		m.retain(job, 1)
	}
	return nil
}

// Kept is the ended jobs that retention counts: all of them, or those of a user.
type Kept struct {
	list  []keptJob // in the order of their ends
	bytes uint64
}

type keptJob struct {
	ended int64
	id    JobID
	bytes uint64
}

// Jobs is their number.
func (k *Kept) Jobs() int { return len(k.list) }

// Bytes is the size of their results in the spool.
func (k *Kept) Bytes() uint64 { return k.bytes }

// Oldest returns the one that ended first, and when, in Unix ms; 0: there is none.
func (k *Kept) Oldest() (JobID, int64) {
	if len(k.list) == 0 {
		return 0, 0
	}
	return k.list[0].id, k.list[0].ended
}

func (k *Kept) find(job *Job) (int, bool) {
	return slices.BinarySearchFunc(k.list, keptJob{ended: job.Ended, id: job.ID}, func(a, b keptJob) int {
		return cmp.Or(cmp.Compare(a.ended, b.ended), cmp.Compare(a.id, b.id))
	})
}

// add adds a job. Jobs end in the order of the log, so that is nearly always at the end.
func (k *Kept) add(job *Job) {
	i, _ := k.find(job)
	entry := keptJob{ended: job.Ended, id: job.ID, bytes: job.spoolBytes()}
	k.list = slices.Insert(k.list, i, entry)
	k.bytes += entry.bytes
}

// remove removes a job. The oldest one costs nothing.
func (k *Kept) remove(job *Job) {
	i, ok := k.find(job)
	if !ok {
		return
	}
	k.bytes -= k.list[i].bytes
	if i == 0 {
		k.list = k.list[1:]
	} else {
		k.list = slices.Delete(k.list, i, i+1)
	}
}

// beyond returns the job that r does not keep at a time, in Unix ms; 0: it keeps all.
func (k *Kept) beyond(r *Retention, now int64) JobID {
	id, ended := k.Oldest()
	switch {
	case id == 0:
	case r.Jobs > 0 && len(k.list) > int(r.Jobs),
		r.Bytes > 0 && k.bytes > r.Bytes && len(k.list) > 1,
		r.ForMS > 0 && now-ended > int64(r.ForMS): //nolint:gosec // bounded
		return id
	}
	return 0
}

// spoolBytes is the size of what is kept in the spool for an ended job.
func (j *Job) spoolBytes() uint64 {
	if !j.Spec.Spool || j.Status == JobStopped {
		return 0
	}
	return j.OutputBytes
}

// Kept returns the ended jobs that retention counts. They belong to the machine.
func (m *Machine) Kept() *Kept { return &m.kept }

// Pinned is the number of jobs that are kept whatever the retention is.
func (m *Machine) Pinned() (n int) {
	for _, of := range m.pinned {
		n += of
	}
	return n
}

// retain adds a job to those that retention counts, or with -1 removes it. One that is pinned is not counted, nor is one that was not run as long
// as the job is there because of which: a retry of that must find the others, however many they are.
func (m *Machine) retain(job *Job, change int) {
	if job.Pinned || m.jobs[job.Blocker] != nil {
		return
	}
	own := m.keptOf[job.Spec.User]
	if own == nil {
		own = &Kept{}
		m.keptOf[job.Spec.User] = own
	}
	for _, k := range []*Kept{&m.kept, own} {
		if change > 0 {
			k.add(job)
		} else {
			k.remove(job)
		}
	}
	if own.Jobs() == 0 {
		delete(m.keptOf, job.Spec.User)
	}
}

// countOthers lets retention count the jobs that were not run because of one that is forgotten.
func (m *Machine) countOthers(first *Job) {
	if first.Status == JobDone || first.Blocker != 0 { // no other job has it as its blocker
		return
	}
	for _, job := range m.jobs {
		if job.Blocker == first.ID {
			m.retain(job, 1)
		}
	}
}

// Beyond returns the ended job that retention does not keep at a time, in Unix ms, the one that ended first of several; ok is false if there is none.
func (m *Machine) Beyond(now int64) (id JobID, ok bool) {
	all := m.access.retentions.Everyone()
	id = m.kept.beyond(&all, now)
	for _, r := range m.access.retentions.Users() {
		if own := m.keptOf[r.User]; id == 0 && own != nil {
			id = own.beyond(r, now)
		}
	}
	return id, id != 0
}

func (c *codec) retention(r *Retention) {
	c.string(1, &r.User)
	number(c, 2, &r.Jobs)
	number(c, 3, &r.ForMS)
	number(c, 4, &r.Bytes)
	c.end("a retention")
}
