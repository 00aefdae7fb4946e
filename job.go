package bridgefour

import "context"

// A Job is what a user submits: made by [New] of typed stages, or a [Mapper].
type Job interface {
	// Name is the name on the command line: bridgefour run NAME.
	Name() string
}

// A Mapper is a job at the lowest level: its Map runs once per split of the input, from bytes to bytes.
type Mapper interface {
	Job
	// Map reads the task's split and writes the task's part. It returns early if ctx ends, because the job was stopped, the attempt
	// has timed out, or the task was assigned to another worker. Then reads from the task fail.
	Map(ctx context.Context, t *Task) error
}

// A Collector is a mapper with a final task: Collect reads the parts, in task order, and writes the small result. It runs when all
// tasks are done, on any worker.
//
// The size of the result is limited by [SettingResultMax]. Beyond the limit, or if Collect returns [ErrPartsAreResult], nothing is
// written and the parts are the result.
type Collector interface {
	Mapper
	Collect(ctx context.Context, c *Collection) error
}

// A Describer is a job that describes itself. Any other job needs an input and has no settings.
type Describer interface {
	Job
	Describe() Description
}

// A SettingsChecker is a [Mapper] that refuses settings at submit, if they are not what its [Description] says alone. An error, which is about all settings that are
// wrong, refuses the job. It is not called if the description is not met.
type SettingsChecker interface {
	Mapper
	CheckSettings(settings Settings) error
}

// Description is what the engine needs to know of a job before it runs. The stages follow from the job's methods: see
// [Collector].
type Description struct {
	// Summary says what the job does, in a few words, for its help.
	Summary string
	// Example is what may follow bridgefour run NAME, for its help.
	Example string
	// NoInput allows jobs without an input, which have one task. Defaults to false: a submit without an input is an error.
	NoInput bool
	// Divisible says that it does not matter how the input of a [Mapper] is divided, because its result is what its Maps write, one after the other: then the engine
	// chooses the size of splits by the number of slots, and lets small files share a task and its part. Defaults to false: a file up to 64 MiB is a
	// task. Jobs made by [New] always are.
	Divisible bool
	// FirstSuccess makes the job done when one task of its only stage succeeds: the others are stopped, and may fail, as with --first-success. It is for searches.
	// Defaults to false.
	FirstSuccess bool
	// Records are the kinds of --records that the job reads without tearing records apart, without their arguments: lines, jsonl, csv, fasta, fastq, start or
	// fixed. Any other kind is an error of the submit. Defaults to all.
	Records []string
	// Settings are the settings that the job reads with [Task.Settings].
	Settings []Setting
}

// Setting describes one setting of a job.
type Setting struct {
	Key      string
	Usage    string // short help, such as "regular expression (RE2)"
	Type     string // such as "bool", "number", "size" or "duration". Defaults to "text"
	Default  string // what stands for a missing value; empty: that is in Usage, or none is needed
	Required bool
}
