package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/commit"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// output validates the output folder.
func (p *planner) output(ctx context.Context) error {
	if p.req.Output == "" {
		return nil
	}
	store, name, err := p.opt.Stores.Open(p.req.Output)
	if err != nil {
		p.fail("output", "output %v", err)
		return nil
	}
	if name.IsRoot() {
		p.fail("output", "the output cannot be the root folder; use another folder")
		return nil
	}
	p.result.Output = string(name)
	p.realOutput = store.Resolve(ctx, name)
	for _, r := range p.opt.Reserved {
		if relation := blob.Relation(ctx, name, blob.Location(r.Dir)); relation != "" {
			p.fail("output", "output %q %s %s, %q; use a folder apart from it", name, relation, r.What, r.Dir)
			return nil
		}
	}
	if dir := blob.DataDir(ctx, name); dir != "" {
		p.fail("output", "output %q is in %q, the data directory of a worker or a leader; use a folder apart from it", name, dir)
		return nil
	}
	if err := store.CheckWritable(ctx, name); err != nil {
		p.fail("output", "output %q cannot be written: %v", name, err)
		return nil
	}
	names, err := children(ctx, store, name)
	if err != nil {
		return fmt.Errorf("output %q: %w", name, err)
	}
	_, err = store.Stat(ctx, name)
	p.outputHere = err == nil
	if p.opt.Again {
		return nil
	}
	earlier, err := commit.NamesOf(ctx, store, name)
	if err != nil {
		return fmt.Errorf("output %q: %w", name, err)
	}
	p.outputHolds(names, earlier)
	return nil
}

// outputHolds checks the existing content of the output folder.
func (p *planner) outputHolds(names []string, earlier string) {
	name := p.result.Output
	if i := slices.Index(names, layout.Temporary); i >= 0 {
		names = slices.Delete(names, i, i+1)
		p.warn("output %q holds %s: another job is writing there, or has crashed", name, layout.Temporary)
	}
	if len(names) == 0 {
		return
	}
	if !p.req.Overwrite {
		p.fail("output", `output %q is not empty: it holds %s; use --overwrite (in a request, "overwrite": true) or another folder`, name, some(names))
		return
	}
	if earlier != "" {
		p.warn("output %q holds parts of another job that are named %s: they are replaced, and other files are kept", name, earlier)
		return
	}
	if others := slices.DeleteFunc(names, layout.IsPublished); len(others) > 0 {
		p.warn("output %q also holds %s, which is kept", name, some(others))
	}
}

// some quotes the first few of a sorted list.
func some(names []string) string {
	const few = 3
	quoted := make([]string, 0, few)
	for _, name := range names[:min(len(names), few)] {
		quoted = append(quoted, fmt.Sprintf("%q", name))
	}
	text := strings.Join(quoted, ", ")
	if more := len(names) - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// children lists the names in a folder, sorted.
func children(ctx context.Context, store blob.Store, dir blob.Location) ([]string, error) {
	var (
		mu    sync.Mutex // guards names
		names []string
	)
	keep := func(name blob.Location, _ bool) bool {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, name.Base())
		return false
	}
	for _, err := range store.List(ctx, dir, keep, nil) {
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// isBelow reports whether l is dir or lies below it.
func isBelow(l, dir blob.Location) bool {
	_, below := l.Below(dir)
	return below
}

// outputApart checks that neither of the output and an input folder contains the other. dir is the input with resolved links.
func (p *planner) outputApart(field string, input, dir blob.Location) {
	if p.realOutput == "" {
		return
	}
	switch {
	case isBelow(p.realOutput, dir):
		p.fail(field, "output %q is inside input %q, so the next job would read it as input; use another folder",
			p.result.Output, input)
	case isBelow(dir, p.realOutput):
		p.fail(field, "input %q is inside output %q; use another output folder",
			input, p.result.Output)
	}
}
