package plan

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/state"
)

// inputs plans tasks of the files of the inputs. If jobs that have not ended write a part of them, the files can only be listed when they have, and the
// job holds its locks.
func (p *planner) inputs(ctx context.Context, split uint64) error {
	later, err := p.writtenBefore(ctx)
	if err != nil {
		return err
	}
	errs, more, warnings := p.errs, p.more, p.result.Warnings
	if later {
		err = p.findLinks(ctx)
	} else if err = p.files(ctx, split); ctx.Err() == nil && len(p.linked) > 0 {
		var written error
		if later, written = p.written(slices.Collect(maps.Keys(p.linked))); written != nil {
			return written
		}
	}
	if later && ctx.Err() == nil {
		p.errs, p.more, p.result.Warnings = errs, more, warnings // they may be others when it is listed
		p.result.Input, p.result.Deferred = state.Input{Kind: state.InputNone, Tasks: 1}, &state.Deferred{Split: split}
		return nil
	}
	return err
}

// writtenBefore reports whether jobs that have not ended write a part of an input, as far as the inputs tell without a listing.
func (p *planner) writtenBefore(ctx context.Context) (bool, error) {
	for i, text := range p.req.Inputs {
		if _, _, err := p.opt.Stores.Open(text); err != nil && len(p.result.After) > 0 {
			p.fail(fmt.Sprintf("inputs[%d]", i), "input %v", err)
			continue
		}
		if p.opt.Flow.writes(fixedPart(blob.Location(path.Clean(text))), p.result.After) {
			return true, nil
		}
	}
	if err := p.places(ctx); err != nil {
		return false, nil //nolint:nilerr // said when the input is listed
	}
	return p.written(p.bases)
}

// written reports whether jobs that have not ended write at one of these locations.
func (p *planner) written(list []blob.Location) (bool, error) {
	switch {
	case slices.ContainsFunc(list, func(l blob.Location) bool { return p.opt.Flow.writes(l, p.result.After) }):
		return true, nil
	case p.opt.Writes == nil:
		return false, nil
	}
	return p.opt.Writes(shared(list), p.result.After)
}

// findLinks lists the inputs for the links below them alone. What is wrong with an input is said when it is listed for its tasks.
func (p *planner) findLinks(ctx context.Context) error {
	for i, text := range p.req.Inputs {
		store, name, err := p.opt.Stores.Open(text)
		if err != nil {
			continue
		}
		keep := keepListed
		if _, err := store.Stat(ctx, name); err != nil {
			pt, err := parsePattern(name)
			if err != nil {
				continue
			}
			name, keep = pt.base, pt.keep
		}
		for range store.List(ctx, name, keep, func(target blob.Location) { p.link(fmt.Sprintf("inputs[%d]", i), target) }) { //nolint:errcheck // see above
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
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
