package state

import (
	"cmp"
	"strings"
)

// WorkerStatus is the status of a worker.
type WorkerStatus uint8

// The statuses of a worker. A removed worker is no longer in the state; if it registers again, it is a new one.
const (
	WorkerAlive WorkerStatus = iota
	WorkerDead               // no heartbeat for too long
	WorkerDraining
	WorkerRemoved
)

func (s WorkerStatus) String() string {
	return nameOf(s, "status", "alive", "dead", "draining", "removed")
}

// Next reports whether a status may follow another. Besides, a registration makes a dead worker alive; a draining one stays draining.
func (s WorkerStatus) Next(to WorkerStatus) bool {
	switch s {
	case WorkerAlive:
		return to != WorkerAlive && to <= WorkerRemoved
	case WorkerDead:
		return to == WorkerAlive || to == WorkerRemoved
	case WorkerDraining:
		return to == WorkerDead || to == WorkerRemoved
	case WorkerRemoved:
	}
	return false
}

// WorkerInfo is a worker's registration.
type WorkerInfo struct {
	Identity string
	Host     string
	Address  string
	Version  string
	Slots    uint32
	Memory   uint64
	Labels   map[string]string
	// Confinement is what the worker enforces for all attempts, for users.
	Confinement []string
	// Resources are those for attempts, by name, but for its memory.
	Resources []Resource
	// Claim is the id that the worker has of its configuration or its invitation, for the original system's routes, plus 1; 0: none. No two
	// workers have the same.
	Claim uint64
}

// Labels of workers whose program has jobs of its own.
const (
	// LabelJobs has the names of the jobs, separated by commas, or the beginning of that and its hash. A job of such a program has it as well, as the leader that
	// accepted it would: a worker needs the same value, as all versions ask for, or the job's name.
	LabelJobs = "b4.jobs"
	// LabelJob begins the names of labels without a value, one for each job, if LabelJobs cannot have the names of all.
	LabelJob = "b4.job."
)

// OwnJob is the name of the job if only some programs have it; else it is empty.
func (s *Spec) OwnJob() string {
	if s.Labels[LabelJobs] == "" {
		return ""
	}
	return s.Builtin
}

// HasLabel reports whether labels of a worker have the one that a job needs whose OwnJob is given.
func HasLabel(labels map[string]string, key, value, own string) bool {
	if labels[key] == value {
		return true
	}
	if key != LabelJobs || own == "" {
		return false
	}
	_, has := labels[LabelJob+own]
	for name := range strings.SplitSeq(labels[LabelJobs], ",") {
		has = has || name == own
	}
	return has
}

// Worker is one worker. One that was invited and has not come yet is dead, and has no identity.
type Worker struct {
	ID     WorkerID
	Status WorkerStatus
	// Missed is the fencing numbers that it has missed since it is dead: from this one on. 0: it is not dead, or a state of an older version does not tell.
	Missed uint64
	WorkerInfo
}

// MayRun reports whether attempts of a job with this fencing number may have been granted to the worker.
func (w *Worker) MayRun(fence uint64) bool {
	came := w.Identity != ""
	return came && (w.Missed == 0 || fence < w.Missed)
}

// Claimant returns the worker with a claim, or nil.
func (m *Machine) Claimant(claim uint64) *Worker {
	for _, w := range m.workers {
		if claim != 0 && w.Claim == claim {
			return w
		}
	}
	return nil
}

// register adds a worker, or makes a known one alive. One without a claim keeps the one that it had. One that claims what a dead worker
// claims takes its place: its container was replaced, or it was invited. Without an identity, the worker with that claim is expected at an address.
// A number that was an id is not given to a later worker: a client that removes an id twice must not remove two workers.
func (m *Machine) register(info WorkerInfo, out *Result) (WorkerID, *Rejection) {
	id, known := m.byIdentity[info.Identity]
	m.expects = m.expects || info.Identity == ""
	var w Worker // a copy: a snapshot may still read the old one
	if known {
		w = *m.workers[id]
		info.Claim = cmp.Or(info.Claim, w.Claim)
	}
	if earlier := m.Claimant(info.Claim); earlier != nil && earlier.ID != id {
		switch {
		case info.Identity == "" && earlier.Status != WorkerDead:
			return earlier.ID, nil
		case info.Identity == "":
			w = *earlier
			w.Address = info.Address
			m.workers[w.ID] = &w
			return w.ID, nil
		case earlier.Status != WorkerDead:
			return 0, reject(Conflict, "worker %d at %s has the same id %d: two workers cannot share an id; start this one with another WORKER_ID",
				earlier.ID, cmp.Or(earlier.Address, earlier.Host), info.Claim-1)
		case known:
			m.removeWorker(earlier, out)
		default:
			delete(m.byIdentity, earlier.Identity)
			id, known, w = earlier.ID, true, *earlier
		}
	}
	if !known {
		m.lastWorker++
		id = m.lastWorker
		w.ID = id
	}
	if info.Claim != 0 {
		m.lastWorker = max(m.lastWorker, WorkerID(info.Claim-1))
	}
	again := known && w.Status != WorkerDead
	w.WorkerInfo = info
	m.workers[id] = &w
	w.Missed = 0
	if info.Identity == "" {
		w.Status = WorkerDead
		m.record(Event{Kind: WorkerChanged, Worker: id}, out)
		return id, nil
	}
	m.byIdentity[info.Identity] = id
	if w.Status == WorkerDead {
		w.Status = WorkerAlive
	}
	joined := Event{Kind: WorkerJoined, Worker: id}
	if again { // all workers register again with a new leader: not worth a fact
		out.Events = append(out.Events, joined)
	} else {
		m.record(joined, out)
	}
	return id, nil
}

func (m *Machine) removeWorker(w *Worker, out *Result) {
	delete(m.workers, w.ID)
	delete(m.byIdentity, w.Identity)
	m.record(Event{Kind: WorkerChanged, Worker: w.ID}, out)
}

func (m *Machine) setWorker(id WorkerID, status WorkerStatus, out *Result) *Rejection {
	old := m.workers[id]
	if old == nil {
		return reject(NotFound, "there is no worker %d", id)
	}
	if old.Status == status {
		return nil
	}
	if !old.Status.Next(status) {
		return reject(Conflict, "worker %d is %v; it cannot become %v", id, old.Status, status)
	}
	if status == WorkerRemoved {
		m.removeWorker(old, out)
		return nil
	}
	w := *old
	w.Status = status
	switch {
	case status == WorkerDead && m.level >= 2:
		w.Missed = m.locks.fence + 1
	case status == WorkerAlive:
		w.Missed = 0
	}
	m.workers[id] = &w
	m.record(Event{Kind: WorkerChanged, Worker: id}, out)
	return nil
}
