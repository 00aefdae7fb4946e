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

// missing returns the first winner of the job's stages before end whose file is missing; ok is false if there is none.
func (s *store) missing(job *state.Job, end int) (stage string, task uint64, lease state.Lease, ok bool) {
	for _, stage := range job.Stages[:end] {
		for i := range stage.Tasks {
			out, done := stage.Output(i)
			if done && out.Size > 0 && s.files[job.ID][uint64(out.Winner)] == nil {
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
		if was, published := parts[i]; published && was != out.Winner {
			s.w.fail("part %d of job %d is of lease %s; lease %s is published over it", i, a.job, leaseName(was), leaseName(out.Winner))
		}
		parts[i] = out.Winner
	}
	return nil
}

func newStore(w *World) *store {
	return &store{w: w, files: map[state.JobID]map[uint64]*file{}, parts: map[state.JobID]map[uint64]state.Lease{}}
}
