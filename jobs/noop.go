package jobs

import (
	"context"

	"github.com/bridgefour/bridgefour"
)

// Sample is the job of that name of the original system: it does nothing.
type Sample struct{}

// Name is Sample.
func (Sample) Name() string { return "Sample" }

// Describe allows jobs without an input.
func (Sample) Describe() bridgefour.Description {
	return bridgefour.Description{Summary: "do nothing, as the original system's job does", NoInput: true}
}

// Map does nothing.
func (Sample) Map(context.Context, *bridgefour.Task) error { return nil }

// AlwaysOk does nothing. It measures the cost of a task.
type AlwaysOk struct{}

// Name is AlwaysOk.
func (AlwaysOk) Name() string { return "AlwaysOk" }

// Describe allows jobs without an input.
func (AlwaysOk) Describe() bridgefour.Description {
	return bridgefour.Description{Summary: "do nothing: measure the cost of a task", Example: "--range 1-1000000", NoInput: true}
}

// Map does nothing.
func (AlwaysOk) Map(context.Context, *bridgefour.Task) error { return nil }
