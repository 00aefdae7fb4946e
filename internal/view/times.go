package view

import (
	"cmp"
	"context"
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
	top := topTasks{most: slowest}
	if err := r.eachSettled(ctx, id, func(_ *state.Machine, job *state.Job, stage int, task uint64) {
		out, done := job.Stages[stage].Output(task)
		if !done || out.Worker == 0 {
			return
		}
		h.add(out.Millis)
		times.Total += float64(out.Millis) / 1000
		times.Memory = max(times.Memory, uint64(out.PeakKiB)<<10)
		top.add(slowTask{millis: out.Millis, stage: stage, task: task})
	}, func() error { return nil }); err != nil {
		return api.Times{}, err
	}
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
