package view

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// LockText is a name as a job's request has it: NAME, or NAME:shared, or NAME:exclusive if it has a colon.
func LockText(n state.LockName) string {
	if n.Shared || strings.Contains(n.Name, ":") {
		return n.Name + ":" + lockMode(&n)
	}
	return n.Name
}

// lockMode is the mode of a name.
func lockMode(n *state.LockName) string {
	if n.Shared {
		return api.LockShared
	}
	return api.LockExclusive
}

// LockHolder returns the public form of a request, as it locks one of its names. Core is nil on a leader that does not lead: it does not know when
// locks expire.
func LockHolder(l *state.Lock, name *state.LockName, core *leader.Core, now time.Time) api.LockHolder {
	h := api.LockHolder{
		ID: uint64(l.ID), Job: uint64(l.Job), Ended: l.Over, Holder: l.Holder, User: l.User, Mode: lockMode(name), Note: l.Note, Fence: l.Fence,
		Since: time.UnixMilli(l.Since).UTC(),
	}
	if l.Max > 1 {
		h.Max = l.Max
	}
	if !l.Held() {
		h.Place = l.Place()
	}
	if core != nil && l.Job == 0 {
		h.ExpiresInMillis = uint64(core.LockExpires(now, l.ID).Milliseconds()) //nolint:gosec // not negative
	}
	if core != nil && l.Over {
		h.Workers, h.MoreWorkers = lockWorkers(core, l.ID, now)
	}
	return h
}

// lockWorkers returns the workers that a request waits for that is over, and how many more there are.
func lockWorkers(core *leader.Core, id state.LockID, now time.Time) (list []api.LockWorker, more uint64) {
	all := core.Remnants(now, id)
	for _, r := range all[:min(len(all), api.LockWorkersMax)] {
		w := api.LockWorker{Worker: uint64(r.Worker), Status: api.LockWorkerStopping}
		if r.Lost {
			w.Status, w.LeftMillis = api.LockWorkerLost, uint64(r.Left.Milliseconds()) //nolint:gosec // not negative
			if r.Removed {
				w.Status = api.LockWorkerRemoved
			}
		}
		list = append(list, w)
	}
	return list, uint64(len(all) - len(list)) //nolint:gosec // not negative
}

// EndedHolder says what a job waits for that has ended and has its locks still, and what a user can do about it, if anything.
func EndedHolder(h *api.LockHolder) (text, advice string) {
	var stopping, others, lost []string
	var left time.Duration
	for _, w := range h.Workers {
		name := fmt.Sprintf("worker %d", w.Worker)
		if w.Status == api.LockWorkerStopping {
			stopping = append(stopping, name)
			continue
		}
		others = append(others, fmt.Sprintf("%s (%s)", name, w.Status))
		left = max(left, time.Duration(w.LeftMillis)*time.Millisecond) //nolint:gosec // bounded by the grace of the job
		if w.Status == api.LockWorkerLost {
			lost = append(lost, strconv.FormatUint(w.Worker, 10))
		}
	}
	if h.MoreWorkers > 0 && len(others) > 0 {
		others = append(others, fmt.Sprintf("%d more", h.MoreWorkers))
	} else if h.MoreWorkers > 0 {
		stopping = append(stopping, fmt.Sprintf("%d more", h.MoreWorkers))
	}
	var parts []string
	if len(stopping) > 0 {
		parts = append(parts, "its last attempts are being stopped on "+strings.Join(stopping, ", "))
	}
	if len(others) > 0 {
		parts = append(parts, fmt.Sprintf("attempts of it may run on %s for %s more at most", strings.Join(others, ", "), shortly(left)))
	}
	if len(parts) == 0 {
		parts = []string{"its last attempts may still run"}
	}
	switch len(lost) {
	case 0:
	case 1:
		advice = fmt.Sprintf("bridgefour workers remove %s ends the wait for this worker, if its machine is gone", lost[0])
	default:
		advice = fmt.Sprintf("bridgefour workers remove N ends the wait for a lost worker (%s), if its machine is gone", strings.Join(lost, ", "))
	}
	return strings.Join(parts, ", and "), advice
}

// LockHolderAt is LockHolder of a request at a name: as it locks this name, or else the first one above or below it.
func LockHolderAt(l *state.Lock, name *state.LockName, core *leader.Core, now time.Time) api.LockHolder {
	names := l.Names()
	at := slices.IndexFunc(names, func(n state.LockName) bool { return n.Name == name.Name && n.Data == name.Data })
	if at < 0 {
		at = max(0, slices.IndexFunc(names, func(n state.LockName) bool { return n.Conflicts(name) }))
	}
	h := LockHolder(l, &names[at], core, now)
	if names[at].Name != name.Name {
		h.Name = names[at].Name
	}
	return h
}

// LockConflict returns why names are not free for a request, which is nil if it does not wait.
func LockConflict(m *state.Machine, names []state.LockName, own *state.Lock, core *leader.Core, now time.Time, most int) *api.LockConflict {
	list, all := m.Conflicts(names, own, most)
	before := make([]state.LockCopy, len(list))
	for i, l := range list {
		before[i] = l.Copy()
	}
	return LockConflictWith(names, before, all, core, now)
}

// LockConflictWith is the conflict of names with a list of requests, the first ones of all.
func LockConflictWith(names []state.LockName, list []state.LockCopy, all int, core *leader.Core, now time.Time) *api.LockConflict {
	c := &api.LockConflict{Place: uint64(all)} //nolint:gosec // a length
	for i := range list {
		theirs, ours := conflictOf(list[i].Names, names)
		h := LockHolder(&list[i].Lock, theirs, core, now)
		if c.Name == "" {
			c.Name = ours.Name
		}
		if h.Name = theirs.Name; h.Name == c.Name {
			h.Name = ""
		}
		c.Holders = append(c.Holders, h)
	}
	return c
}

// conflictOf returns the first name of a list, and of names, that conflict.
func conflictOf(list, names []state.LockName) (theirs, ours *state.LockName) {
	for i := range list {
		for k := range names {
			if list[i].Conflicts(&names[k]) {
				return &list[i], &names[k]
			}
		}
	}
	return &list[0], &names[0]
}

// locks explains which locks a job waits for.
func (e *explainer) locks() {
	own := e.machine.LockOf(e.job.ID)
	if own == nil || own.Held() {
		return
	}
	names := own.Names()
	c := LockConflict(e.machine, names, own, e.core, e.now, explainLocks)
	at := slices.IndexFunc(names, func(n state.LockName) bool { return n.Name == c.Name })
	if at < 0 {
		return
	}
	e.out.Lock = &api.JobLock{
		LockName: api.LockName{Name: c.Name, Mode: lockMode(&names[at])}, Data: names[at].Data, Place: c.Place, Holders: c.Holders,
	}
	article := "an"
	if names[at].Shared {
		article = "a"
	}
	var held, before []string
	for i := range c.Holders {
		h := &c.Holders[i]
		if h.User != e.job.Spec.User {
			h.Holder, h.Name, h.Note = "", "", ""
		}
		if h.Fence != 0 {
			held = append(held, e.holder(h))
		} else {
			before = append(before, e.holder(h))
		}
	}
	text := fmt.Sprintf("it waits for %s %s lock on %s", article, lockMode(&names[at]), c.Name)
	if len(held) > 0 {
		text += ", held by " + strings.Join(held, ", ")
	}
	if more := int(c.Place) - len(c.Holders); more > 0 { //nolint:gosec // at most all requests
		before = append(before, state.Counted(uint64(more), "more request")) //nolint:gosec // positive
	}
	switch {
	case len(before) == 1:
		text += "; " + before[0] + " is before it"
	case len(before) > 1:
		text += "; " + strings.Join(before, ", ") + " are before it"
	}
	e.because("%s", text)
}

// kept explains that a job that has ended has its locks still.
func (e *explainer) kept() {
	if e.core == nil {
		return
	}
	l := e.core.OverLock(e.job.ID)
	if l == nil {
		return
	}
	h := LockHolder(l, &l.Names()[0], e.core, e.now)
	text, advice := EndedHolder(&h)
	e.because("it has its locks until its last attempts have ended: %s", text)
	if advice != "" {
		e.advise("%s", advice)
	}
}

// holder describes what has a lock, or waits for it.
func (e *explainer) holder(h *api.LockHolder) string {
	job := e.machine.Job(state.JobID(h.Job))
	switch {
	case h.Ended:
		text, advice := EndedHolder(h)
		if advice != "" {
			e.advise("%s", advice)
		}
		return fmt.Sprintf("job %d (ended, %s)", h.Job, text)
	case job == nil && h.Holder == "":
		return "user " + h.User
	case job == nil && h.User != "":
		return fmt.Sprintf("%s of user %s", h.Holder, h.User)
	case job == nil:
		return h.Holder
	case h.Fence == 0:
		return fmt.Sprintf("job %d", h.Job)
	}
	text := jobStatus(job, e.core)
	if tasks, done := job.TaskCounts(); done > 0 && done < tasks {
		share := float64(done) / float64(tasks)
		text += fmt.Sprintf(", %.0f %%", 100*share)
		if spent := e.now.Sub(time.UnixMilli(job.Started)); job.Started != 0 && spent > 0 {
			left := time.Duration(float64(spent) * (1 - share) / share)
			text += ", about " + shortly(left) + " left"
		}
	}
	return fmt.Sprintf("job %d (%s)", h.Job, text)
}

// shortly is a duration in its largest unit.
func shortly(d time.Duration) string {
	switch {
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	case d >= 2*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f s", max(1, d.Seconds()))
}
