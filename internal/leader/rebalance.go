package leader

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// dirtySet is the workers that rebalance must look at: something has changed for them, or for all.
type dirtySet struct {
	workers []*worker // each once: worker.dirty
	all     bool
	ripe    time.Time // the last end of a back-off that has marked all
}

// mark adds a worker.
func (d *dirtySet) mark(w *worker) {
	if !w.dirty {
		w.dirty = true
		d.workers = append(d.workers, w)
	}
}

// markAll adds all workers.
func (d *dirtySet) markAll() { d.all = true }

// due reports, once, whether a back-off has ended by now that ends at the given time.
func (d *dirtySet) due(now, at time.Time) bool {
	if at.After(now) || !at.After(d.ripe) {
		return false
	}
	d.ripe = at
	return true
}

// rebalance is the third duty of a leader: to grant open tasks to free slots. Only dirty workers are looked at. They take turns, a
// grant each, so that work is spread over them.
func (c *Core) rebalance() {
	if c.dirty.all || c.sched.Freed() {
		c.dirty.all = false
		for _, w := range c.registry.workers {
			c.dirty.mark(w)
		}
	}
	if c.idle || c.pipeline.behind() || len(c.dirty.workers) == 0 {
		return // they stay dirty until the log has caught up
	}
	alone := c.registry.assignable(2) == 1
	slices.SortFunc(c.dirty.workers, func(a, b *worker) int { return cmp.Compare(a.ID, b.ID) })
	for len(c.dirty.workers) > 0 {
		c.dirty.workers = slices.DeleteFunc(c.dirty.workers, func(w *worker) bool {
			ok := w.assignable()
			if ok {
				w.Alone, w.Apart = alone, c.runsApart(w)
				var g sched.Grant
				if g, ok = c.sched.Next(c.now, &w.Worker); ok {
					c.grant(w, &g)
				}
			}
			w.dirty = ok
			return !ok
		})
	}
}

// grant leases the tasks of g to w.
func (c *Core) grant(w *worker, g *sched.Grant) {
	job, stage, key := g.Job, g.Job.Stages[g.Stage], sched.Key{Job: g.Job.ID, Stage: g.Stage}
	if _, ok := w.session.known[job.ID]; !ok {
		w.session.known[job.ID] = struct{}{}
		fence := uint64(0)
		if l := c.machine.LockOf(job.ID); l != nil {
			fence = l.Fence
		}
		message := wireJob(job, c.leftovers.unled, fence, c.members.ClusterID, c.openSecret)
		work := c.outbox.workWith(w.session, proto.Size(message))
		work.Jobs = append(work.Jobs, message)
	}
	var out *wire.Leases
	bytes := 0
	send := func() {
		work := c.outbox.workWith(w.session, bytes)
		work.Leases = append(work.Leases, out)
	}
	splits := job.Spec.Splits(int(g.Stage))
	leases := make([]lease, len(g.Tasks)) // one allocation; it is freed once all of them have ended
	for i, task := range g.Tasks {
		if out != nil && bytes > workBytesMax/2 {
			send()
			out = nil
		}
		if out == nil {
			bytes = 0
			out = &wire.Leases{
				Job: uint64(job.ID), Stage: g.Stage, FirstLease: uint64(c.leases.last + 1), Action: wire.CommitAction(stage.Action),
				Index: make([]uint64, 0, len(g.Tasks)),
			}
		}
		leases[i] = lease{taskKey: taskKey{key, task}, cost: g.Cost}
		c.leases.grant(w.leases, &leases[i])
		attempt := stage.Attempt(task)
		if g.Second {
			attempt++
		}
		if attempt > 1 || out.Attempt != nil {
			for len(out.Attempt) < len(out.Index) {
				out.Attempt = append(out.Attempt, 1)
			}
			out.Attempt = append(out.Attempt, attempt)
		}
		if splits {
			split := c.split(job, task)
			bytes += splitBytes(split)
			out.Splits = append(out.Splits, split)
		}
		out.Index = append(out.Index, task)
		bytes += leaseBytes
	}
	send()
	c.changed[job.ID] = struct{}{}
}

// blocksBytesMax bounds the decoded blocks of the lists of all jobs.
const blocksBytesMax = 64 << 20

// split returns the split of a task. If its block cannot be decoded, it is one that no runner accepts, so that the task fails as bad input.
func (c *Core) split(job *state.Job, task uint64) *wire.Split {
	r := c.readers[job.ID]
	if r == nil {
		r = c.blocks.NewReader(&job.Spec.Input)
		c.readers[job.ID] = r
	}
	s, err := r.Split(task)
	if err != nil {
		return &wire.Split{}
	}
	switch {
	case s.Values != nil:
		return &wire.Split{Kind: &wire.Split_Items{Items: &wire.Items{Values: s.Values}}}
	case s.Files != nil:
		files := &wire.Files{}
		for i := range s.Files {
			files.List = append(files.List, fileSplit(&s.Files[i]))
		}
		return &wire.Split{Kind: &wire.Split_Files{Files: files}}
	case s.Path == nil:
		return &wire.Split{Kind: &wire.Split_Item{Item: s.Item}}
	}
	return &wire.Split{Kind: &wire.Split_File{File: fileSplit(&s)}}
}

func fileSplit(s *state.Split) *wire.FileSplit {
	return &wire.FileSplit{
		Path: s.Path, Offset: s.Offset, Length: s.Length, Whole: s.Whole,
		Size: s.Version.Size, ModifiedUnixNs: s.Version.Modified, Identity: s.Version.Identity, Tail: s.Version.Tail,
	}
}

// splitBytes bounds the size of a split in a message, but for leaseBytes.
func splitBytes(split *wire.Split) int {
	n := len(split.GetItem()) + len(split.GetFile().GetPath())
	for _, v := range split.GetItems().GetValues() {
		n += len(v) + valueBytes
	}
	for _, f := range split.GetFiles().GetList() {
		n += len(f.GetPath()) + leaseBytes
	}
	return n
}
