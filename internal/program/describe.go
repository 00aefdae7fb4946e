package program

import "github.com/bridgefour/bridgefour"

// Description is what planning and the command line must know of a built-in job.
type Description struct {
	bridgefour.Description
	Name     string
	Collects bool // it ends in a collect stage
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
