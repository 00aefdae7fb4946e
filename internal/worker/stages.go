package worker

import (
	"context"
	"iter"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// stages runs the stages that read other stages' outputs.
type stages struct {
	leader *leaderConn
	users  runner.Users
}

// inputs is the input of a collect or a reduce stage: the outputs of the stages that it comes from.
func (s *stages) inputs(ctx context.Context, job *wire.Job, stage *wire.Stage) iter.Seq2[runner.Part, error] {
	return func(yield func(runner.Part, error) bool) {
		for _, from := range stage.GetFrom() {
			name := wire.StageOf(job, from).GetName()
			for p, err := range s.leader.parts(ctx, &wire.PartsRequest{Job: job.GetId(), Stage: from, Host: s.users.Host}, nil) {
				part := runner.Part{
					Stage: from, Index: p.index, Lease: p.lease, Size: p.size, Records: p.records, Checksum: p.checksum, Maker: p.maker,
					Path: attemptFolder(job).Join(layout.Attempt(name, p.index, p.lease)),
				}
				if !yield(part, err) {
					return
				}
			}
		}
	}
}

// attemptFolder is the folder of the attempts of a job.
func attemptFolder(job *wire.Job) blob.Location {
	return blob.Location(job.GetOutput()).Join(layout.Private(job.GetUid()))
}
