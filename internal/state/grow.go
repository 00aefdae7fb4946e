package state

import "slices"

// Growth is what is added to an input that is growing.
type Growth struct {
	Tasks, Bytes uint64
	Last         bool // the input is complete now
}

// Growing reports whether the job gets more tasks, or has ended without them: its input is not complete.
func (j *Job) Growing() bool { return j.Stages[0].growing && !j.Stages[0].Closed }

// grow adds files to the input of a job. Readers may hold its spec, which is not changed; of the blocks they see those that it had.
func (m *Machine) grow(job *Job, c *command, out *Result) *Rejection {
	bytes := blockBytesOf(c.blocks)
	switch in := &job.Spec.Input; {
	case job.Status != JobActive || !job.Growing():
		return reject(Conflict, "job %d takes no more input", job.ID)
	case uint64(len(in.Blocks)) != c.staged:
		return reject(Conflict, "the input of job %d has grown otherwise meanwhile", job.ID)
	case c.growth.Tasks > MaxTasks-in.Tasks:
		return reject(TooLarge, "a job may have %d tasks: use a larger split", uint64(MaxTasks))
	case in.BlockBytes()+bytes > InputBytesMax:
		return reject(TooLarge, "the list of the input's pieces takes more than %d MiB as compressed: use a larger split", InputBytesMax>>20)
	case m.inputs+bytes > InputsBytesMax:
		return reject(Busy, "the inputs of the jobs that have not ended take more than %d MiB of each leader's memory", InputsBytesMax>>20)
	}
	spec := *job.Spec
	for _, b := range c.blocks {
		b.First += spec.Input.Tasks
		spec.Input.Blocks = append(spec.Input.Blocks, b)
	}
	m.inputs += bytes
	spec.Input.Tasks += c.growth.Tasks
	spec.Input.Bytes += c.growth.Bytes
	spec.Input.Growing = !c.growth.Last
	spec.Stages = slices.Clone(spec.Stages)
	job.Spec = &spec
	stage := job.Stages[0]
	spec.Stages[0].Tasks = spec.Input.Tasks
	stage.StageSpec, stage.growing = spec.Stages[0], spec.Input.Growing
	out.Events = append(out.Events, Event{Kind: StageGrown, Job: job.ID})
	if c.growth.Last {
		m.settle(job, 0, false, out)
	}
	return nil
}
