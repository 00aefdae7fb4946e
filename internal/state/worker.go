package state

import "fmt"

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
	names := [...]string{"alive", "dead", "draining", "removed"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
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
}

// Worker is one worker.
type Worker struct {
	ID     WorkerID
	Status WorkerStatus
	WorkerInfo
}

func (m *Machine) register(info WorkerInfo, out *Result) WorkerID {
	id, known := m.byIdentity[info.Identity]
	var w Worker // a copy: a snapshot may still read the old one
	if known {
		w = *m.workers[id]
	} else {
		m.lastWorker++
		id = m.lastWorker
		m.byIdentity[info.Identity] = id
		w.ID = id
	}
	again := known && w.Status != WorkerDead
	w.WorkerInfo = info
	if w.Status == WorkerDead {
		w.Status = WorkerAlive
	}
	m.workers[id] = &w
	joined := Event{Kind: WorkerJoined, Worker: id}
	if again { // all workers register again with a new leader: not worth a fact
		out.Events = append(out.Events, joined)
	} else {
		m.record(joined, out)
	}
	return id
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
		delete(m.workers, id)
		delete(m.byIdentity, old.Identity)
	} else {
		w := *old
		w.Status = status
		m.workers[id] = &w
	}
	m.record(Event{Kind: WorkerChanged, Worker: id}, out)
	return nil
}
