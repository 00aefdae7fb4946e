package view

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Times returns the run times of a job's done tasks, and the slowest of them.
func (r *Reader) Times(ctx context.Context, id uint64, slowest int) (api.Times, error) {
	if _, err := r.known(id); err != nil {
		return api.Times{}, err
	}
	var h histogram
	var times api.Times
	var stages stageTotals
	top := topTasks{most: slowest}
	if err := r.eachSettled(ctx, id, func(_ *state.Machine, job *state.Job, stage int, task uint64) {
		out, done := job.Stages[stage].Output(task)
		if !done || out.Worker == 0 {
			return
		}
		stages.add(job, stage, task, &out)
		h.add(out.Millis)
		times.Total += float64(out.Millis) / 1000
		times.Memory = max(times.Memory, uint64(out.PeakKiB)<<10)
		top.add(slowTask{millis: out.Millis, stage: stage, task: task})
	}, func() error { return nil }); err != nil {
		return api.Times{}, err
	}
	times.Stages = stages.public()
	times.Tasks = h.all
	for _, q := range []struct {
		to   *float64
		part float64
	}{{&times.Shortest, 0}, {&times.P50, 0.5}, {&times.P90, 0.9}, {&times.P99, 0.99}, {&times.Longest, 1}} {
		*q.to = float64(h.quantile(q.part)) / 1000
	}
	var err error
	times.Slowest, err = r.tasks(ctx, id, top.list)
	return times, err
}

// stageTotals sums up the done tasks of each stage.
type stageTotals struct {
	job    *state.Job // as it was
	stages []*stageTotal
}

type stageTotal struct {
	number           int
	times            histogram
	millis           uint64
	written, records uint64
	slowest, largest uint64   // tasks
	longest          uint32   // of slowest
	most             uint64   // read by largest
	reads            []uint64 // of a stage that reduces
}

func (t *stageTotals) add(job *state.Job, stage int, task uint64, out *state.Output) {
	if t.job == nil {
		t.job = new(*job)
	}
	if n := len(t.stages); n == 0 || t.stages[n-1].number != stage {
		t.stages = append(t.stages, &stageTotal{number: stage})
	}
	s := t.stages[len(t.stages)-1]
	if s.times.all == 0 || out.Millis > s.longest {
		s.slowest, s.longest = task, out.Millis
	}
	s.times.add(out.Millis)
	s.millis += uint64(out.Millis)
	s.written += out.Size
	s.records += out.Records
	if job.Spec.Stages[stage].Role == state.RoleReduce {
		if len(s.reads) == 0 || out.Read > s.most {
			s.largest, s.most = task, out.Read
		}
		s.reads = append(s.reads, out.Read)
	}
}

func (t *stageTotals) public() []api.StageTimes {
	list := []api.StageTimes{}
	for _, s := range t.stages {
		name := t.job.Spec.Stages[s.number].Name
		task := func(index uint64) string { return fmt.Sprintf("%d/%s/%d", t.job.ID, name, index) }
		out := api.StageTimes{
			Stage: name, Tasks: s.times.all, P50: float64(s.times.quantile(0.5)) / 1000, Longest: float64(s.longest) / 1000, Slowest: task(s.slowest),
			Total: float64(s.millis) / 1000, Written: s.written, Records: s.records,
		}
		if t.job.Spec.Stages[s.number].Role == state.RoleMap {
			out.Read = t.job.ReadBytes
		}
		if len(s.reads) > 0 {
			for _, n := range s.reads {
				out.Read += n
			}
			out.ReadP50, out.ReadMost, out.ReadMostOf = median(s.reads), s.most, task(s.largest)
		}
		list = append(list, out)
	}
	return list
}

// median sorts the list, which is not empty.
func median(list []uint64) uint64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// slowTask is a task and its run time.
type slowTask struct {
	millis uint32
	stage  int
	task   uint64
}

// topTasks are the slowest tasks, the slowest first.
type topTasks struct {
	list []slowTask
	most int
}

func (t *topTasks) add(s slowTask) {
	if len(t.list) == t.most && (t.most == 0 || s.millis <= t.list[t.most-1].millis) {
		return
	}
	at, _ := slices.BinarySearchFunc(t.list, s, func(a, b slowTask) int {
		return cmp.Or(cmp.Compare(b.millis, a.millis), cmp.Compare(a.stage, b.stage), cmp.Compare(a.task, b.task))
	})
	t.list = slices.Insert(t.list, at, s)
	t.list = t.list[:min(len(t.list), t.most)]
}

// tasks returns the public form of tasks of a job.
func (r *Reader) tasks(ctx context.Context, id uint64, list []slowTask) ([]api.Task, error) {
	tasks := []api.Task{}
	var job *state.Job
	done := false
	var rows []taskRow
	if err := r.source.Do(ctx, func(c *leader.Controller) {
		j := c.Machine().Job(state.JobID(id))
		if j == nil {
			return
		}
		job = new(*j) // as it is now
		done = job.Status == state.JobDone
		for _, s := range list {
			rows = append(rows, makeRow(job.Stages[s.stage], s.stage, s.task, nil))
		}
	}); err != nil {
		return nil, err
	}
	if job == nil {
		return nil, api.NoJob(id)
	}
	names := partname.Of(job.Spec)
	for i := range rows {
		tasks = append(tasks, publicTask(job, &rows[i], names, done))
	}
	return tasks, nil
}

// histogram counts milliseconds in buckets whose width is at most a 64th of their values.
type histogram struct {
	buckets        [64 * 28]uint64
	all            uint64
	least, largest uint32
}

const bucketBits = 6 // of a value that tell buckets apart

func bucketOf(ms uint32) int {
	shift := max(0, bits.Len32(ms)-bucketBits-1)
	return shift<<bucketBits + int(ms>>shift)
}

// valueOf is the middle of a bucket.
func valueOf(bucket int) uint32 {
	if bucket < 1<<(bucketBits+1) {
		return uint32(bucket) //nolint:gosec // small
	}
	shift := bucket>>bucketBits - 1
	return uint32(bucket-shift<<bucketBits)<<shift + 1<<shift/2 //nolint:gosec // as bucketOf has made it
}

func (h *histogram) add(ms uint32) {
	if h.all == 0 {
		h.least = ms
	}
	h.least, h.largest = min(h.least, ms), max(h.largest, ms)
	h.buckets[bucketOf(ms)]++
	h.all++
}

// quantile returns the value of which that part of all values is smaller or equal.
func (h *histogram) quantile(part float64) uint32 {
	rank := uint64(part * float64(h.all))
	for i, n := range h.buckets {
		if n > rank {
			return min(max(valueOf(i), h.least), h.largest)
		}
		rank -= n
	}
	return h.largest
}
