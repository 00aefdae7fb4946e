package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// output checks where the parts are to go.
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
		p.fail("output", "the output cannot be the root folder; name one for the job")
		return nil
	}
	p.result.Output = string(name)
	p.realOutput = store.Resolve(ctx, name)
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
	if !p.opt.Again {
		p.outputHolds(names)
	}
	return nil
}

// outputHolds judges what the output folder holds already.
func (p *planner) outputHolds(names []string) {
	name := p.result.Output
	if i := slices.Index(names, layout.Temporary); i >= 0 {
		names = slices.Delete(names, i, i+1)
		p.warn("output %q holds %s: another job writes there now, or one has died in it", name, layout.Temporary)
	}
	if len(names) == 0 {
		return
	}
	if !p.req.Overwrite {
		p.fail("output", "output %q is not empty: it holds %s; use --overwrite or name another folder", name, some(names))
		return
	}
	if others := slices.DeleteFunc(names, layout.IsPublished); len(others) > 0 {
		p.warn("output %q also holds %s, which stays there", name, some(others))
	}
}

// some names the first few of a sorted list.
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

// children names what is in a folder, sorted.
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
	for _, err := range store.List(ctx, dir, keep) {
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

// outputApart checks that neither of output and an input folder, whose links are followed in dir, lies in the other.
func (p *planner) outputApart(field string, input, dir blob.Location) {
	if p.realOutput == "" {
		return
	}
	switch {
	case isBelow(p.realOutput, dir):
		p.fail(field, "output %q lies inside input %q; the next job would read it as input. Name a folder elsewhere",
			p.result.Output, input)
	case isBelow(dir, p.realOutput):
		p.fail(field, "input %q lies inside output %q, where other files may be in its way. Name another output",
			input, p.result.Output)
	}
}
