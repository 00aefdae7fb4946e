package bridgefour

import (
	"context"
	"fmt"

	"github.com/bridgefour/bridgefour/internal/hooks"
)

func init() { //nolint:gochecknoinits // engines must not depend on the order in which packages are initialized
	hooks.Register(open)
}

// open returns what runs a job.
func open(job any) (hooks.Mapper, error) {
	switch job := job.(type) {
	case Mapper:
		return mapper{job}, nil
	case Job:
		return nil, fmt.Errorf("job %q has no method Map(context.Context, *bridgefour.Task) error, and was not made by bridgefour.New", job.Name())
	}
	return nil, fmt.Errorf("%T is not a bridgefour.Job", job)
}

// mapper is a Mapper as engines run it.
type mapper struct{ job Mapper }

func (m mapper) Collects() bool {
	_, collects := m.job.(Collector)
	return collects
}

func (m mapper) NewTask() hooks.Task { return &mapperTask{job: m.job} }

// mapperTask runs the tasks of a Mapper.
type mapperTask struct {
	job    Mapper
	task   Task
	outErr error // of a collection
}

// Run calls Map, once for each file.
func (m *mapperTask) Run(ctx context.Context, spec *hooks.TaskSpec) error {
	m.outErr = nil
	m.task.reset(ctx, spec)
	return m.task.eachInput(func() error { return m.job.Map(ctx, &m.task) })
}

func (m *mapperTask) Finish() (records uint64, err error) { return m.task.finish() }

func (m *mapperTask) OutputErr() error {
	if m.outErr != nil {
		return m.outErr
	}
	return m.task.out.err
}

// Collect calls the job's Collect.
func (m *mapperTask) Collect(ctx context.Context, spec *hooks.CollectionSpec) (records uint64, kept bool, err error) {
	collector, ok := m.job.(Collector)
	if !ok {
		return 0, false, fmt.Errorf("job %q has no collect stage", m.job.Name())
	}
	m.task.out.err = nil
	c := newCollection(spec)
	records, kept, err = c.run(ctx, collector)
	m.outErr = c.out.err
	return records, kept, err
}
