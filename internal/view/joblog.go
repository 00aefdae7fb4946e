package view

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
)

// settledVisit is how many tasks one visit of eachSettled looks at.
const settledVisit = 1 << 14

// eachSettled calls visit for each task that is done or dead, except those of collect and commit stages, in the goroutine that owns the state,
// and between in the caller's goroutine after up to settledVisit tasks.
func (r *Reader) eachSettled(ctx context.Context, id uint64, visit func(m *state.Machine, job *state.Job, stage int, task uint64), between func() error) error {
	for stage, task, more := 0, uint64(0), true; more; {
		gone := false
		if err := r.source.Do(ctx, func(c *leader.Controller) {
			m := c.Machine()
			job := m.Job(state.JobID(id))
			if gone = job == nil; gone {
				return
			}
			for range settledVisit {
				if stage, task, more = nextRun(job, stage, task); !more {
					return
				}
				if job.Stages[stage].Status(task) != state.TaskOpen {
					visit(m, job, stage, task)
				}
				task++
			}
		}); err != nil {
			return err
		}
		if gone {
			return api.NoJob(id)
		}
		if err := between(); err != nil {
			return err
		}
	}
	return nil
}

// nextRun returns the first task of a map or reduce stage at or after a task.
func nextRun(job *state.Job, stage int, task uint64) (at int, index uint64, ok bool) {
	for stage < len(job.Stages) && (task >= job.Stages[stage].Tasks || !job.Stages[stage].Role.RunsProgram()) {
		stage, task = stage+1, 0
	}
	return stage, task, stage < len(job.Stages)
}

// joblogHeader has the columns of GNU parallel's job log, and further ones.
const joblogHeader = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tItem\tWorker\tAttempts\tMemory\tPart\tTask\n"

// Joblog writes a line for each task that is done or dead, in task order.
func (r *Reader) Joblog(ctx context.Context, id uint64, w io.Writer) error {
	if _, err := r.known(id); err != nil {
		return err
	}
	type row struct {
		taskRow

		host string
	}
	var rows []row
	var job state.Job // as it was: only its constant fields and its spec are used
	hosts := map[state.WorkerID]string{}
	var names *partname.Names
	var named *state.Spec
	var command, reduce []byte
	seq := uint64(0)
	text := []byte(joblogHeader)
	err := r.eachSettled(ctx, id, func(m *state.Machine, j *state.Job, stage int, task uint64) {
		row := row{taskRow: makeRow(j.Stages[stage], stage, task, nil)}
		if n := len(row.failures.Last); row.worker == 0 && n > 0 {
			row.worker = row.failures.Last[n-1].Worker
		}
		name, known := hosts[row.worker]
		if !known {
			if info := m.Worker(row.worker); info != nil {
				name = info.Host
			}
			hosts[row.worker] = name
		}
		row.host = name
		if rows = append(rows, row); job.Spec != j.Spec {
			job = *j
		}
	}, func() error {
		if named != job.Spec {
			names, named = partname.Of(job.Spec), job.Spec
			command, reduce = appendCell(nil, jobCommand(job.Spec)), appendCell(nil, job.Spec.Reduce)
		}
		for i := range rows {
			seq++
			run := command
			if job.Stages[rows[i].stage].Role == state.RoleReduce {
				run = reduce
			}
			text = appendJoblog(text, &job, &rows[i].taskRow, rows[i].host, seq, run, names)
		}
		_, err := w.Write(text)
		rows, text = rows[:0], text[:0]
		return err
	})
	return err
}

// jobCommand is the program of a job as its user has given it.
func jobCommand(spec *state.Spec) string {
	if spec.Builtin != "" {
		return spec.Builtin
	}
	var words []string
	for _, arg := range spec.Argv {
		words = append(words, string(arg))
	}
	return strings.Join(words, " ")
}

// appendJoblog appends a line of a job log. What is not known is 0, or empty.
func appendJoblog(text []byte, job *state.Job, row *taskRow, host string, seq uint64, command []byte, names *partname.Names) []byte {
	started, millis, exit, signal := int64(0), row.out.Millis, 0, 0
	if row.status == api.TaskDone && row.out.Worker != 0 {
		started = job.Created + int64(row.out.Started)
	}
	if n := len(row.failures.Last); row.status == api.TaskDead {
		exit = -1
		if n > 0 {
			last := &row.failures.Last[n-1]
			started, millis = last.Time-int64(last.Millis), last.Millis
			exit, signal = exitOf(last.Message)
		}
	}
	var reads partname.Reading
	if job.Spec.Reads(row.stage) {
		reads = partname.Reads(names.Input(), row.index)
	}
	text = append(strconv.AppendUint(text, seq, 10), '\t')
	text = append(appendCell(text, host), '\t')
	text = append(appendMillis(text, started), '\t')
	text = append(appendMillis(text, int64(millis)), '\t')
	text = append(strconv.AppendUint(text, reads.Length, 10), '\t')
	text = append(strconv.AppendUint(text, row.out.Size, 10), '\t')
	text = append(strconv.AppendInt(text, int64(exit), 10), '\t')
	text = append(strconv.AppendInt(text, int64(signal), 10), '\t')
	text = append(append(text, command...), '\t')
	if n := reads.Len(); n > 0 {
		if text = appendCell(text, reads.Name(0)); n > 1 {
			text = fmt.Appendf(text, " and %d more", n-1)
		}
	}
	text = append(text, '\t')
	text = append(strconv.AppendUint(text, uint64(row.worker), 10), '\t')
	text = append(strconv.AppendUint(text, uint64(row.attempt), 10), '\t')
	text = append(strconv.AppendUint(text, uint64(row.out.PeakKiB)<<10, 10), '\t')
	stage := &job.Spec.Stages[row.stage]
	if row.status == api.TaskDone && row.stage == job.Spec.PartStage() && !job.Spec.Spool {
		if part, err := names.Name(row.index); err == nil { // the task reports a damaged input
			text = append(text, part...)
		}
	}
	text = append(strconv.AppendUint(append(text, '\t'), uint64(job.ID), 10), '/')
	text = append(append(text, stage.Name...), '/')
	return append(strconv.AppendUint(text, row.index, 10), '\n')
}

// appendMillis appends milliseconds as seconds.
func appendMillis(text []byte, ms int64) []byte {
	text = append(strconv.AppendInt(text, ms/1000, 10), '.')
	return append(text, byte('0'+ms/100%10), byte('0'+ms/10%10), byte('0'+ms%10))
}

// appendCell appends a text without tabs, line ends and other characters that cannot be printed: they are escaped.
func appendCell(text []byte, s string) []byte {
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }) < 0 {
		return append(text, s...)
	}
	quoted := strconv.Quote(s)
	return append(text, quoted[1:len(quoted)-1]...)
}

// exitOf returns the exit status or the signal of an attempt that failed with this message; -1 if it did not end by itself.
func exitOf(message string) (exit, signal int) {
	if n, ok := numberAfter(message, "exit status "); ok {
		return n, 0
	}
	if n, ok := numberAfter(message, "killed by signal "); ok {
		return 0, n
	}
	return -1, 0
}

func numberAfter(text, prefix string) (n int, ok bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return 0, false
	}
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	n, err := strconv.Atoi(rest[:digits])
	return n, err == nil
}
