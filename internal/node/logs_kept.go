package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/view"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// keptLog is what the leaders kept of a failed attempt.
type keptLog struct {
	state.KeptTail

	stage string
	ended int64 // Unix milliseconds; 0: not known
}

// keptLogs returns what the leaders kept that a query selects.
func (n *Node) keptLogs(ctx context.Context, q api.LogQuery) (list []keptLog, err error) {
	err = n.do(ctx, func() {
		m := n.loop.controller.Machine()
		job := m.Job(state.JobID(q.Job))
		for _, t := range m.Tails(state.JobID(q.Job)) {
			stage := stageOf(job, t.Stage)
			if stage == nil || !selects(q, stage, t.Task) {
				continue
			}
			kept := keptLog{KeptTail: t, stage: stage.Name}
			for _, f := range stage.Failures(t.Task).Last {
				if f.Lease == t.Lease {
					kept.ended = f.Time
				}
			}
			if !before(kept.ended, q.Since) {
				list = append(list, kept)
			}
		}
	})
	return list, err
}

// emitKept emits what the leaders kept of failed attempts and no worker has sent, and marks their leases as answered if that is all.
func (n *Node) emitKept(ctx context.Context, q api.LogQuery, emitted map[logPlace]int, answers *logAnswers, emit func(api.LogRecord) error) error {
	tails, err := n.keptLogs(ctx, q)
	if err != nil {
		return err
	}
	for _, t := range tails {
		lease := uint64(t.Lease)
		record := api.LogRecord{
			Task: fmt.Sprintf("%d/%s/%d", t.Job, t.stage, t.Task), Attempt: t.Attempt, Worker: uint64(t.Worker), Lease: lease, Kept: true, Time: view.Time(t.ended),
		}
		if !answers.leases[lease] && emitted[logPlace{record.Worker, lease}] == 0 {
			if err := emitTail(record, t.Log, t.LogBytes, emit); err != nil {
				return err
			}
			answers.leases[lease] = t.LogBytes <= wire.TailMax
		}
		record.Output = true
		if err := emitTail(record, t.Output, t.OutputBytes, emit); err != nil {
			return err
		}
	}
	return nil
}

// emitMissing emits a record for each worker whose logs are missing.
func (n *Node) emitMissing(ctx context.Context, q api.LogQuery, answers *logAnswers, emit func(api.LogRecord) error) error {
	if n.cfg.Idle && answers.whole() {
		return nil // Those who read the logs of a run have all its workers, under other numbers if they had left.
	}
	stages, err := n.stageNames(ctx, q)
	if err != nil {
		return err
	}
	places := logPlaces{answers: answers, byWorker: map[uint64]*taskRanges{}}
	for stage := range stages {
		if err := n.findLogs(ctx, q, uint32(stage), &places); err != nil {
			return err
		}
	}
	for _, worker := range slices.Sorted(maps.Keys(places.byWorker)) {
		missing, err := n.missing(ctx, worker, answers.gaps[worker], places.byWorker[worker])
		if err == nil {
			err = emit(api.LogRecord{Worker: worker, Missing: missing})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stdoutBytesMax bounds api.Failure.Stdout.
const stdoutBytesMax = 4 << 10

// Task returns one task, with the end of the standard output of its failed attempts.
func (n *Node) Task(ctx context.Context, id uint64, stage string, index uint64) (api.Task, error) {
	task, err := n.Reader.Task(ctx, id, stage, index)
	if err != nil || len(task.Failures) == 0 {
		return task, err
	}
	var tails []state.KeptTail
	err = n.do(ctx, func() {
		m := n.loop.controller.Machine()
		for _, t := range m.Tails(state.JobID(id)) {
			if s := stageOf(m.Job(t.Job), t.Stage); t.Task == index && s != nil && s.Name == stage {
				tails = append(tails, t)
			}
		}
	})
	for _, t := range tails {
		for i := range task.Failures {
			if t.Attempt != task.Failures[i].Attempt || t.OutputBytes == 0 {
				continue
			}
			text, err := wire.TailText(t.Output, t.OutputBytes)
			if err != nil {
				text = fmt.Appendf(nil, "[%v]", err)
			}
			task.Failures[i].Stdout = strings.ToValidUTF8(string(text[max(0, len(text)-stdoutBytesMax):]), "\ufffd")
		}
	}
	return task, err
}

// emitTail emits a kept text. A damaged one is replaced by its error.
func emitTail(record api.LogRecord, compressed []byte, all uint64, emit func(api.LogRecord) error) error {
	if all == 0 {
		return nil
	}
	text, err := wire.TailText(compressed, all)
	if err != nil {
		text = fmt.Appendf(nil, "[%v]\n", err)
	}
	record.Text = text
	return emit(record)
}

// missing says which logs of a worker are missing, and why.
func (n *Node) missing(ctx context.Context, worker uint64, gap string, tasks *taskRanges) (text string, err error) {
	err = n.do(ctx, func() {
		w := n.loop.controller.Machine().Worker(state.WorkerID(worker))
		switch {
		case w == nil:
			text = fmt.Sprintf("worker %d has left the cluster, and took", worker)
		case gap == "":
			text = fmt.Sprintf("worker %d (%s) is away: start it again to read", worker, w.Host)
		default:
			text = fmt.Sprintf("worker %d (%s): %s; it has", worker, w.Host, gap)
		}
	})
	return text + " the logs of " + tasks.String(), err
}

// logPlaces are the workers whose logs are missing, with the tasks that ran on them.
type logPlaces struct {
	answers  *logAnswers
	byWorker map[uint64]*taskRanges
}

// add adds an attempt.
func (p *logPlaces) add(worker state.WorkerID, lease state.Lease, stage string, index uint64) {
	id := uint64(worker)
	if gap, answered := p.answers.gaps[id]; id == 0 || answered && gap == "" || p.answers.leases[uint64(lease)] {
		return
	}
	if p.byWorker[id] == nil {
		p.byWorker[id] = &taskRanges{}
	}
	p.byWorker[id].add(stage, index)
}

// addTask adds the attempts of a task.
func (p *logPlaces) addTask(s *state.Stage, index uint64) {
	for _, f := range s.Failures(index).Last {
		p.add(f.Worker, f.Lease, s.Name, index)
	}
	if out, done := s.Output(index); done {
		p.add(out.Worker, out.Winner, s.Name, index)
	}
}

// findLogs adds the tasks of a stage whose logs are missing, page by page.
func (n *Node) findLogs(ctx context.Context, q api.LogQuery, number uint32, places *logPlaces) error {
	for first, more := uint64(0), true; more; first += partsPage {
		if err := n.do(ctx, func() {
			stage := stageOf(n.loop.controller.Machine().Job(state.JobID(q.Job)), number)
			if more = stage != nil && stage.Role != state.RoleCommit && (!q.OneTask || stage.Name == q.Stage); !more {
				return
			}
			from, to := first, min(first+partsPage, stage.Tasks)
			if q.OneTask {
				from, to = q.Index, min(q.Index+1, stage.Tasks)
			}
			for i := from; i < to; i++ {
				if selects(q, stage, i) {
					places.addTask(stage, i)
				}
			}
			more = !q.OneTask && to < stage.Tasks
		}); err != nil {
			return err
		}
	}
	return nil
}

// taskRanges lists tasks in ascending order, a stage at a time.
type taskRanges struct {
	tasks    uint64
	ranges   []string // of the first tasks
	stage    string
	from, to uint64 // of the open range, if stage is not empty
}

// taskRangesMax is how many ranges are listed.
const taskRangesMax = 20

func (t *taskRanges) add(stage string, index uint64) {
	switch {
	case t.stage == stage && index == t.to:
		return // another attempt of the task
	case t.stage == stage && index == t.to+1:
		t.to++
	default:
		t.close()
		t.stage, t.from, t.to = stage, index, index
	}
	t.tasks++
}

// close ends the open range.
func (t *taskRanges) close() {
	switch {
	case t.stage == "" || len(t.ranges) > taskRangesMax:
	case len(t.ranges) == taskRangesMax:
		t.ranges = append(t.ranges, "and more")
	case t.from == t.to:
		t.ranges = append(t.ranges, fmt.Sprintf("%s/%d", t.stage, t.from))
	default:
		t.ranges = append(t.ranges, fmt.Sprintf("%s/%d-%d", t.stage, t.from, t.to))
	}
	t.stage = ""
}

func (t *taskRanges) String() string {
	t.close()
	noun := "tasks"
	if t.tasks == 1 {
		noun = "task"
	}
	return fmt.Sprintf("%d %s: %s", t.tasks, noun, strings.Join(t.ranges, ", "))
}
