package sim

import (
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
	worker "github.com/bridgefour/bridgefour/internal/worker/core"
)

// store is the shared file system of the workers: the files of attempts, and the published parts.
type store struct {
	w     *World
	files map[state.JobID]map[uint64]*file // by lease
	parts map[state.JobID]map[uint64]state.Lease
	lost  map[state.Lease]bool // files that a fault has removed
}

type file struct {
	worker int
	synced bool
}

func (s *store) add(a *attempt, lease uint64, worker int) {
	if s.files[a.job] == nil {
		s.files[a.job] = map[uint64]*file{}
	}
	s.files[a.job][lease] = &file{worker: worker}
}

func (s *store) find(lease uint64) (*file, state.JobID) {
	a := s.w.oracle.attempt(state.Lease(lease))
	if a == nil {
		return nil, 0
	}
	return s.files[a.job][lease], a.job
}

func (s *store) synced(leases []uint64) {
	for _, lease := range leases {
		if f, _ := s.find(lease); f != nil {
			f.synced = true
		}
	}
}

// remove removes the file of an attempt that is stale to its worker.
func (s *store) remove(lease uint64, by int) {
	_, job := s.find(lease)
	delete(s.files[job], lease)
	s.w.oracle.removed(job, state.Lease(lease), by)
}

// removeStage removes the files of a stage that no stage reads any more. If one does again, because an output of its own was lost, they are lost too.
func (s *store) removeStage(e worker.RemoveStage) {
	id := state.JobID(e.Job.GetId())
	for lease := range s.files[id] {
		a := s.w.oracle.attempt(state.Lease(lease))
		if lease <= e.Lease && wire.StageOf(e.Job, a.stage).GetName() == e.Stage {
			delete(s.files[id], lease)
			s.lost[state.Lease(lease)] = true
		}
	}
}

// forgetUnsynced is the end of a worker's machine.
func (s *store) forgetUnsynced(worker int) {
	for _, files := range s.files {
		for lease, f := range files {
			if f.worker == worker && !f.synced {
				delete(files, lease)
			}
		}
	}
}

// lose removes the file of a winner that a later stage of its job may read, and returns its lease; 0 if there is none.
func (s *store) lose(choice int) state.Lease {
	m := s.w.oracle.state
	if m.Level() == 0 { // the loss could not be reported
		return 0
	}
	var all []state.Lease
	for _, id := range m.Live() {
		job := m.Job(id)
		for _, stage := range job.Stages {
			for i := range stage.Tasks {
				out, done := stage.Output(i)
				if done && job.Status == state.JobActive && s.files[id][uint64(out.Winner)] != nil {
					all = append(all, out.Winner)
				}
			}
		}
	}
	if len(all) == 0 {
		return 0
	}
	lease := all[choice%len(all)]
	delete(s.files[s.w.oracle.attempt(lease).job], uint64(lease))
	s.lost[lease] = true
	s.w.trace("lost", uint64(lease))
	return lease
}

// lostInput returns a winner whose file was lost, of the stages that a stage reads; 0 if there is none. A job that is cleaned up takes
// what there is.
func (s *store) lostInput(id state.JobID, number uint32) state.Lease {
	job := s.w.oracle.state.Job(id)
	if job == nil || job.Status != state.JobActive {
		return 0
	}
	for _, from := range job.Stages[number].From {
		for i := range job.Stages[from].Tasks {
			if out, done := job.Stages[from].Output(i); done && s.lost[out.Winner] {
				return out.Winner
			}
		}
	}
	return 0
}

// missing returns the first winner of the job's stages before end whose file is missing; ok is false if there is none.
func (s *store) missing(job *state.Job, end int) (stage string, task uint64, lease state.Lease, ok bool) {
	for k, stage := range job.Stages[:end] {
		for i := range stage.Tasks {
			out, done := stage.Output(i)
			forged := s.w.oracle.forged(leasedTask{stageKey{job.ID, uint32(k)}, i, out.Winner})
			if done && out.Size > 0 && s.files[job.ID][uint64(out.Winner)] == nil && !s.lost[out.Winner] && !forged {
				return stage.Name, i, out.Winner, true
			}
		}
	}
	return "", 0, 0, false
}

// publish runs the task of a commit stage. Concurrent ones are tested in package commit; here a void lease is refused.
func (s *store) publish(a *attempt, ch *worker.Chunk) *wire.Failure {
	job := s.w.oracle.state.Job(a.job)
	if job == nil || !job.Open(int(a.stage), 0) {
		return &wire.Failure{Kind: wire.FailureKind_OUTPUT_ERROR, Message: "the job has gone on without this attempt"}
	}
	if ch.Action == wire.CommitAction_ABORT {
		delete(s.files, a.job)
		delete(s.parts, a.job)
		return nil
	}
	if name, task, lease, lost := s.missing(job, int(a.stage)); lost {
		s.w.fail("job %d is committed; the file of the winner of %s/%d, lease %s, is gone", a.job, name, task, leaseName(lease))
		return nil
	}
	parts := s.parts[a.job]
	if parts == nil {
		parts = map[uint64]state.Lease{}
		s.parts[a.job] = parts
	}
	stage := job.Parts()
	for i := range stage.Tasks {
		out, done := stage.Output(i)
		if !done || out.Size == 0 {
			continue
		}
		if was, published := parts[i]; published && was != out.Winner && !s.lost[was] {
			s.w.fail("part %d of job %d is of lease %s; lease %s is published over it", i, a.job, leaseName(was), leaseName(out.Winner))
		}
		parts[i] = out.Winner
	}
	return nil
}

func newStore(w *World) *store {
	return &store{
		w: w, files: map[state.JobID]map[uint64]*file{}, parts: map[state.JobID]map[uint64]state.Lease{}, lost: map[state.Lease]bool{},
	}
}
