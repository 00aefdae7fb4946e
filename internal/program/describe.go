package program

import "github.com/bridgefour/bridgefour"

// Description describes a built-in job for planning and the command line.
type Description struct {
	bridgefour.Description
	Name     string
	Collects bool // it has a collect stage
}

// Describe describes a job.
func Describe(job bridgefour.Job) Description {
	d := Description{Name: job.Name()}
	if job, ok := job.(bridgefour.Describer); ok {
		d.Description = job.Describe()
	}
	_, d.Collects = job.(bridgefour.Collector)
	return d
}
