package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/bridgefour/bridgefour/internal/state"
)

// opKind is a kind of request.
type opKind uint8

const (
	opSubmit opKind = iota
	opStop
	opRetry
	opRead // linearizable
)

// request is one call of a client for the job that is submitted with a key.
type request struct {
	kind opKind
	key  string
}

// answer is the outcome of a request.
type answer struct {
	unknown bool // it may be carried out at any later time, or never
	refused bool // by the state machine
	job     state.JobID
	missing bool // of a read: there is no such job
	status  state.JobStatus
	done    uint64 // of a read: tasks of the first stage that are done
}

// jobState is the state of a job in the model.
type jobState struct {
	exists bool
	id     state.JobID
	status state.JobStatus
	done   uint64 // at least
	shared bool   // it may wait for others
}

// onward returns the states that a job can reach by itself.
func (s jobState) onward() []jobState {
	list := []jobState{s}
	add := func(status state.JobStatus) {
		next := s
		next.status = status
		list = append(list, next)
	}
	switch {
	case !s.exists:
	case s.status == state.JobActive || s.status == state.JobWaiting:
		add(state.JobActive)
		add(state.JobDone)
		add(state.JobFailing)
		add(state.JobFailed)
	case s.status == state.JobFailing:
		add(state.JobFailed)
	case s.status == state.JobStopping:
		add(state.JobStopped)
	}
	return list
}

// step returns the possible states of a job in state s after a request with that answer.
func (s jobState) step(in request, out answer) (next []jobState) {
	for _, s := range s.onward() {
		if out.unknown {
			next = append(next, s) // it was not carried out
		}
		switch in.kind {
		case opSubmit:
			if !s.exists {
				s = jobState{exists: true, id: out.job, shared: isShared(in.key)}
				if s.shared {
					waiting := s
					waiting.status = state.JobWaiting
					next = append(next, waiting)
				}
			}
			if out.unknown || s.id == out.job || s.id == 0 {
				s.id = max(s.id, out.job)
				next = append(next, s)
			}
		case opStop:
			next = append(next, s.stop(out)...)
		case opRetry:
			next = append(next, s.retry(out)...)
		case opRead:
			if !s.exists && out.missing {
				next = append(next, s)
			}
			if s.exists && !out.missing && s.status == out.status && s.done <= out.done {
				s.done = out.done
				next = append(next, s)
			}
		}
	}
	return next
}

func (s jobState) stop(out answer) []jobState {
	switch {
	case !s.exists:
		if out.refused || out.unknown {
			return []jobState{s}
		}
		return nil
	case out.refused && (s.status == state.JobDone || s.status == state.JobActive): // the latter: it is being committed
		return []jobState{s}
	case out.refused && s.shared && s.status == state.JobFailed: // others use its output
		return []jobState{s}
	case out.refused, s.status == state.JobDone:
		return nil
	case s.status == state.JobWaiting:
		taken := s // a retry may be taken back
		s.status, taken.status = state.JobStopping, state.JobFailed
		return []jobState{s, taken}
	case s.status != state.JobStopped:
		s.status = state.JobStopping
	}
	return []jobState{s}
}

func (s jobState) retry(out answer) []jobState {
	over := s.exists && (s.status == state.JobFailed || s.status == state.JobStopped)
	switch {
	case out.refused && !over, out.unknown && !over, out.refused && s.shared: // a later job may have published in its output
		return []jobState{s}
	case out.refused, !over:
		return nil
	case s.status == state.JobStopped:
		s.done = 0 // the stop has removed what was done
	}
	s.status = state.JobActive
	waiting := s // for others, or for the attempts of its last run
	waiting.status = state.JobWaiting
	return []jobState{s, waiting}
}

// jobModel is the sequential model of a job, for all requests with one key. Its tasks change the job by themselves, at any time.
func jobModel() porcupine.Model {
	model := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			var keys []string
			for _, op := range history {
				key := op.Input.(request).key
				if byKey[key] == nil {
					keys = append(keys, key)
				}
				byKey[key] = append(byKey[key], op)
			}
			slices.Sort(keys)
			var parts [][]porcupine.Operation
			for _, key := range keys {
				parts = append(parts, byKey[key])
			}
			return parts
		},
		Init: func() []any { return []any{jobState{}} },
		Step: func(s, in, out any) []any {
			var list []any
			for _, next := range s.(jobState).step(in.(request), out.(answer)) {
				if !slices.Contains(list, any(next)) {
					list = append(list, next)
				}
			}
			return list
		},
		Equal: func(a, b any) bool { return a == b },
	}
	return model.ToModel()
}

// history is the requests of clients and their answers.
type history struct {
	ops []porcupine.Operation
}

// call notes a request, and returns its number.
func (h *history) call(client int, now time.Duration, in request) int {
	h.ops = append(h.ops, porcupine.Operation{
		ClientId: client, Input: in, Call: int64(now), Output: answer{unknown: true}, Return: math.MaxInt64,
	})
	return len(h.ops) - 1
}

func (h *history) answered(op int, now time.Duration, out answer) {
	h.ops[op].Output, h.ops[op].Return = out, int64(now)
}

// forget drops a request that is known not to have been carried out.
func (h *history) forget(op int) { h.ops[op].ClientId = -1 }

// check returns an error if the history is not linearizable, as far as the time limit allows.
func (h *history) check(limit time.Duration) error {
	ops := slices.DeleteFunc(slices.Clone(h.ops), func(op porcupine.Operation) bool {
		in, out := op.Input.(request), op.Output.(answer)
		return op.ClientId < 0 || out.unknown && in.kind == opRead
	})
	model := jobModel()
	for _, part := range model.Partition(ops) {
		if porcupine.CheckOperationsTimeout(model, part, limit) != porcupine.Illegal {
			continue
		}
		var text strings.Builder
		for _, op := range part {
			end := "-"
			if op.Return != math.MaxInt64 {
				end = time.Duration(op.Return).String()
			}
			fmt.Fprintf(&text, "\n  %v to %s, client %d: %+v: %+v", time.Duration(op.Call), end, op.ClientId, op.Input, op.Output)
		}
		return fmt.Errorf("not linearizable:%s", text.String())
	}
	return nil
}
