package bridgefour

import "context"

// A Job is a program that runs once for each split of an input.
type Job interface {
	// Name is what users type to run it: bridgefour run NAME.
	Name() string
	// Map reads the task's split and writes the task's part. It returns early when ctx ends: the job was stopped, the
	// attempt's time is over, or the task now belongs to somebody else. Reading from the task fails from then on.
	Map(ctx context.Context, t *Task) error
}

// A Collector is a job that ends in one more task: Collect reads the parts, in the order of the tasks, and writes the
// small result. It runs once all tasks are done, on any worker.
//
// The result is bounded, see [SettingResultMax]. Beyond the bound, or when Collect returns [ErrPartsAreResult], nothing
// is written and the parts are the result.
type Collector interface {
	Job
	Collect(ctx context.Context, c *Collection) error
}

// A Describer is a job that describes itself. Any other job needs an input and has no settings.
type Describer interface {
	Job
	Describe() Description
}

// Description is what the engine must know of a job before it runs. The stages follow from its methods: see [Collector].
type Description struct {
	// NoInput is true for a job that can run without an input: it has one task then. Defaults to false: a submit without
	// an input is an error.
	NoInput bool
	// Settings are the keys that the job reads, see [Task.Settings].
	Settings []Setting
}

// Setting describes one setting of a job.
type Setting struct {
	Key   string
	Usage string // a phrase for the user, with the default: "regular expression (RE2); required"
}
