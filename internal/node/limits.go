package node

import (
	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// checkSize returns a 413 problem if the job is too large for the log or the workers.
func checkSize(key, uid string, spec *state.Spec) error {
	size := leader.JobBytes(key, uid, spec)
	if size <= leader.JobBytesMax {
		return nil
	}
	input := 0
	for _, b := range spec.Input.Blocks {
		input += len(b.Data)
	}
	wayOut := "put what is long in its command, settings or inputs into a file, and name that"
	switch {
	case spec.Input.Kind == state.InputLines && input > size/2:
		wayOut = "put the lines into files and pass those with --input, or make several jobs of them"
	case spec.Input.Kind == state.InputFiles && input > size/2:
		wayOut = "make several jobs of its files"
	}
	return api.TooLarge("the job takes %.1f MiB, and the limit is %d MiB (its lists of lines and files count as compressed): %s",
		float64(size)/(1<<20), leader.JobBytesMax>>20, wayOut)
}
