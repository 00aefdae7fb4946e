package plan

import (
	"context"
	"fmt"
	"path"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/state"
)

// writtenBefore reports whether jobs that have not ended write a part of its input, so that it can only be listed when they have, and the job holds
// its locks.
func (p *planner) writtenBefore(ctx context.Context) (bool, error) {
	for i, text := range p.req.Inputs {
		if _, _, err := p.opt.Stores.Open(text); err != nil && len(p.result.After) > 0 {
			p.fail(fmt.Sprintf("inputs[%d]", i), "input %v", err)
			continue
		}
		base := fixedPart(blob.Location(path.Clean(text)))
		if p.opt.Flow.writes(base, p.result.After) {
			return true, nil
		}
	}
	if err := p.places(ctx); err != nil || p.opt.Writes == nil {
		return false, nil //nolint:nilerr // said when the input is listed
	}
	return p.opt.Writes(p.reads, p.result.After)
}

// Deferred plans the deferred input of a job, as Plan would have planned it, and the partitions of a reduce. Errors of the request are of type Errors.
func Deferred(ctx context.Context, spec *state.Spec, opt Options) (in state.Input, partitions uint64, err error) {
	header := int(spec.Header)
	req := &api.JobRequest{
		Program: api.Program{Builtin: spec.Builtin}, Inputs: spec.InputNames, Records: spec.Records, Header: &header, Overwrite: spec.Overwrite, NameParts: spec.NameParts,
	}
	if !spec.Spool {
		req.Output = spec.Output
	}
	opt.Again = true // its output was examined when it was submitted
	p := newPlanner(req, opt)
	command := Command{Placeholders: placeholder.Mode(spec.Placeholders), Placeholder: spec.Placeholder, Shell: spec.Shell}
	for _, arg := range spec.Argv {
		command.Argv = append(command.Argv, string(arg))
	}
	if len(command.Argv) > 0 {
		p.compiled = command.Compile(nil)
	}
	p.result.SplitMax, p.result.Pack, p.result.SlotsPerTask, p.result.MaxRunning = spec.SplitMax, spec.Pack, spec.SlotsPerTask, spec.MaxRunning
	p.records()
	p.namePattern()
	if err := p.output(ctx); err != nil {
		return in, 0, err
	}
	if err := p.files(ctx, spec.Deferred.Split); err != nil {
		return in, 0, p.with(err)
	}
	p.result.Stages = state.DefaultPlan(p.result.Input.Tasks, false, false)
	if err := p.names(ctx); err != nil {
		return in, 0, err
	}
	if len(p.errs) > 0 {
		return in, 0, p.all()
	}
	return p.result.Input, p.partitions(), nil
}
