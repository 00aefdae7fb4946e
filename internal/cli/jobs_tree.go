package cli

import (
	"io"
	"slices"
	"strconv"

	"github.com/bridgefour/bridgefour/api"
)

// treeDepth bounds the indentation: jobs may come after each other in a line of thousands.
const treeDepth = 16

// jobTree writes jobs, newest first, each below the last one that it comes after.
func jobTree(w io.Writer, jobs []api.Job) error {
	shown := map[uint64]bool{}
	for i := range jobs {
		shown[jobs[i].ID] = true
	}
	tree := jobsBelow{t: newTable(w), below: map[uint64][]*api.Job{}, also: map[uint64][]uint64{}}
	tree.t.row("JOB", "STATUS", "NAME", "PROGRAM", "DONE", "TASKS", "FAILED", "USER", "CREATED", "ALSO AFTER")
	for i := range jobs {
		job, last := &jobs[i], uint64(0)
		for _, d := range job.After {
			if shown[d.Job] {
				last = max(last, d.Job)
			}
		}
		tree.below[last] = append(tree.below[last], job)
		for _, d := range job.After {
			if d.Job != last {
				tree.also[job.ID] = append(tree.also[job.ID], d.Job)
			}
		}
	}
	for _, job := range tree.below[0] {
		tree.draw(job, "", "", 0)
	}
	return tree.t.flush()
}

// jobsBelow is a tree of jobs.
type jobsBelow struct {
	t     *table
	below map[uint64][]*api.Job // by the last one that they come after, newest first; 0: none that is shown
	also  map[uint64][]uint64   // the others that a job comes after
}

// draw writes a job after lead, and those below it after indent.
func (b *jobsBelow) draw(job *api.Job, lead, indent string, depth int) {
	jobRow(b.t, lead+strconv.FormatUint(job.ID, 10), job, numbersText(b.also[job.ID]))
	children := b.below[job.ID]
	for i, child := range slices.Backward(children) { // in the order in which they were submitted
		branch, further := "├─ ", "│  "
		if i == 0 {
			branch, further = "└─ ", "   "
		}
		if depth >= treeDepth {
			further = ""
		}
		b.draw(child, indent+branch, indent+further, depth+1)
	}
}
