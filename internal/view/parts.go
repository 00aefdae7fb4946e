package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"slices"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
)

const (
	// partsVisit is how many tasks one visit to the state looks at.
	partsVisit = 1 << 15
	// partBytesMax bounds a piece of an output.
	partBytesMax = 64 << 10
	// partInputMax bounds Part.Input: an item may take megabytes.
	partInputMax = 4 << 10
)

// StreamParts emits the outputs of tasks as they finish, until the job has ended; those of a task in order and together.
func (r *Reader) StreamParts(ctx context.Context, q api.PartQuery, emit func(api.Part) error) error {
	job, err := r.known(q.Job)
	if err != nil {
		return err
	}
	if !job.Spool && job.Status != api.JobDone {
		return api.Conflict("job %d writes to %s: its parts are there when it is done", q.Job, job.Output)
	}
	parts, err := r.partsOf(&job)
	if err != nil {
		return err
	}
	s := &partStream{resultParts: parts, query: q, emit: emit, at: q.Task}
	if !q.Unordered {
		s.next = q.Task
	}
	settled := uint64(0)
	for {
		found, more, err := s.visit(ctx)
		if err != nil {
			return err
		}
		for i := range found {
			lost, err := s.send(ctx, &found[i])
			if err != nil {
				return err
			}
			if lost {
				s.giveBack(found[i:])
				more = false
				break
			}
		}
		switch {
		case more:
			continue
		case s.ended && q.Sums:
			return s.sendFinal(ctx)
		case s.ended:
			return nil
		}
		if err := r.views.changed.Wait(ctx, func() (bool, error) {
			job, err := r.known(q.Job)
			last, stage := settled, job.PartStage()
			settled = stage.Done + stage.Dead
			return settled != last || job.IsEnded(), err
		}); err != nil {
			return err
		}
	}
}

// partStream is one call of StreamParts.
type partStream struct {
	*resultParts

	query api.PartQuery
	emit  func(api.Part) error

	next  uint64 // tasks before it are sent, or have no output
	ended bool   // the job had ended at the last visit
	heals bool   // the job makes outputs again that are missing, before it is done

	// Of an unordered stream.
	at   uint64   // where the next visit continues
	sent []uint64 // a bit for each task that was found
}

// visit returns the outputs of finished tasks that were not found before, and whether there may be more.
func (s *partStream) visit(ctx context.Context) (found []resultFile, more bool, err error) {
	err = s.resultParts.visit(ctx, func(job *state.Job) {
		s.ended = job.Status.Ended()
		s.heals = job.Status == state.JobActive && slices.ContainsFunc(job.Stages, func(stage *state.Stage) bool { return stage.Role == state.RoleCheck })
		if job.Status == state.JobStopped && job.Spec.Spool {
			return // its outputs are being removed
		}
		stage := job.Parts()
		tasks := s.inOrder(stage)
		if s.query.Unordered {
			tasks = s.anyOrder(stage)
		}
		visited := 0
		for task := range tasks {
			if visited++; visited > partsVisit {
				more = true
				return
			}
			if out, done := stage.Output(task); done && s.take(task) && out.Size > 0 {
				found = append(found, s.file(job, job.Spec.PartStage(), task, out))
			}
		}
	})
	return found, more, err
}

// inOrder yields the next tasks of the settled prefix. An ended job has no other tasks.
func (s *partStream) inOrder(stage *state.Stage) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for ; s.next < stage.Tasks && (s.ended || stage.Status(s.next) != state.TaskOpen); s.next++ {
			if !yield(s.next) {
				return
			}
		}
	}
}

// anyOrder yields the done tasks at or after s.at, then all of them.
func (s *partStream) anyOrder(stage *state.Stage) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for all := false; !all; s.at = s.next {
			all = s.at <= s.next
			for s.at = range stage.DoneTasks(max(s.at, s.next)) {
				if !yield(s.at) {
					return
				}
			}
		}
		for s.next/64 < uint64(len(s.sent)) && s.sent[s.next/64] == math.MaxUint64 {
			s.next += 64
		}
	}
}

// take reports whether the output of a done task is to be sent: once.
func (s *partStream) take(task uint64) bool {
	if !s.query.Unordered {
		return true
	}
	word, bit := task/64, uint64(1)<<(task%64)
	if word >= uint64(len(s.sent)) {
		s.sent = append(s.sent, make([]uint64, word+1-uint64(len(s.sent)))...)
	}
	taken := s.sent[word]&bit == 0
	s.sent[word] |= bit
	return taken
}

// giveBack undoes the visit to outputs that were found, and not sent.
func (s *partStream) giveBack(files []resultFile) {
	for i := range files {
		task := files[i].task
		s.next = min(s.next, task)
		if s.query.Unordered {
			s.next = min(s.next, task/64*64)
			s.sent[task/64] &^= 1 << (task % 64)
		}
	}
}

// send emits the output of a task. It is lost if it is not there, and the job will make it again.
func (s *partStream) send(ctx context.Context, f *resultFile) (lost bool, err error) {
	part := api.Part{Task: f.task}
	if f.task == s.query.Task {
		part.Offset = min(s.query.Offset, f.size)
	}
	if s.query.Sums {
		part.Sum = f.checksum
	}
	in, err := s.open(ctx, f, int64(part.Offset)) //nolint:gosec // a position in a file
	if err != nil {
		if job, ok := s.reader.Job(s.query.Job); ok && job.Status == api.JobStopped {
			return false, nil // it was removed
		}
		if s.heals && api.IsStatus(err, http.StatusGone) {
			return true, nil
		}
		return false, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if s.query.Inputs && s.reads && part.Offset == 0 {
		if r := partname.Reads(s.names.Input(), f.task); r.Len() == 1 {
			part.Input = r.Name(0)
			part.Input = part.Input[:min(len(part.Input), partInputMax)]
		}
	}
	for part.Offset < f.size {
		part.Text = make([]byte, min(f.size-part.Offset, partBytesMax)) // the receiver keeps it
		if part.Bytes, err = io.ReadFull(in, part.Text); err != nil {
			return false, fmt.Errorf("result of job %d: %s: %w", s.query.Job, f.name, err)
		}
		if err := s.emit(part); err != nil {
			return false, err
		}
		part.Offset, part.Input = part.Offset+uint64(part.Bytes), "" //nolint:gosec // not negative
	}
	return false, nil
}

// sendFinal emits the sums of the outputs that count, of the tasks of a done job that have run more than once: others had one output.
func (s *partStream) sendFinal(ctx context.Context) error {
	for from, more := uint64(0), true; more; {
		var final []api.Part
		more = false
		if err := s.resultParts.visit(ctx, func(job *state.Job) {
			if job.Status != state.JobDone {
				return
			}
			stage := job.Parts()
			for task := range stage.FailedTasks(from) {
				if more = len(final) == partsVisit; more {
					from = task
					return
				}
				part := api.Part{Task: task, Final: true}
				if out, done := stage.Output(task); done && out.Size > 0 {
					part.Sum = out.Checksum
				}
				final = append(final, part)
			}
		}); err != nil {
			return err
		}
		for _, part := range final {
			if err := s.emit(part); err != nil {
				return err
			}
		}
	}
	return nil
}
