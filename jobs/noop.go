package jobs

import (
	"context"

	"github.com/bridgefour/bridgefour"
)

// Sample is the original system's job of that name: it does nothing.
type Sample struct{}

// Name is Sample.
func (Sample) Name() string { return "Sample" }

// Describe says that the job needs no input.
func (Sample) Describe() bridgefour.Description { return bridgefour.Description{NoInput: true} }

// Map does nothing.
func (Sample) Map(context.Context, *bridgefour.Task) error { return nil }

// AlwaysOk does nothing, and does it well: what a task costs the engine is measured with it.
type AlwaysOk struct{}

// Name is AlwaysOk.
func (AlwaysOk) Name() string { return "AlwaysOk" }

// Describe says that the job needs no input.
func (AlwaysOk) Describe() bridgefour.Description { return bridgefour.Description{NoInput: true} }

// Map does nothing.
func (AlwaysOk) Map(context.Context, *bridgefour.Task) error { return nil }
