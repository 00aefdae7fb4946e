package plan

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
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
	store, name, err := blob.For(p.req.Output)
	if err != nil {
		p.fail("output", "output %v", err)
		return nil
	}
	if name == "/" {
		p.fail("output", "the output cannot be the root folder; name one for the job")
		return nil
	}
	p.result.Output = name
	p.realOutput = realPath(name)
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
func children(ctx context.Context, store blob.Store, dir string) ([]string, error) {
	var (
		mu    sync.Mutex // guards names
		names []string
	)
	keep := func(name string, _ bool) bool {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, path.Base(name))
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

// realPath is name without links as far as it is there.
func realPath(name string) string {
	rest := ""
	for dir := name; ; dir = path.Dir(dir) {
		resolved, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return path.Join(resolved, rest)
		}
		if dir == path.Dir(dir) {
			return name
		}
		rest = path.Join(path.Base(dir), rest)
	}
}

// isUnder reports whether name is dir or lies below it.
func isUnder(dir, name string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// outputApart checks that neither of output and an input folder lies in the other.
func (p *planner) outputApart(field, input, dir string) {
	if p.realOutput == "" {
		return
	}
	dir = realPath(dir)
	switch {
	case isUnder(dir, p.realOutput):
		p.fail(field, "output %q lies inside input %q; the next job would read it as input. Name a folder elsewhere",
			p.result.Output, input)
	case isUnder(p.realOutput, dir):
		p.fail(field, "input %q lies inside output %q, where other files may be in its way. Name another output",
			input, p.result.Output)
	}
}
