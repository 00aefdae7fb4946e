package plan

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Limits of the check of the names of parts: a hash of each is in memory.
const (
	namesMax       = 10_000_000
	nameFoldersMax = 1_000_000
	patternMax     = 4 << 10
)

// namePattern validates the pattern of the names of the parts.
func (p *planner) namePattern() {
	pattern := p.req.NameParts
	if pattern == "" {
		return
	}
	compiled := partname.Compile(pattern, p.columns())
	switch {
	case p.req.Output == "":
		p.fail("name_parts", "the parts are named in a folder of yours: give an output (--output)")
	case len(pattern) > patternMax:
		p.fail("name_parts", "a pattern of %d bytes is too long: at most %d", len(pattern), patternMax)
	case compiled.UsesSlot():
		p.fail("name_parts", "{%%} is the slot, which is not known before the task runs: use {#}, the number of the task")
	case len(compiled.Unknown) > 0:
		p.fail("name_parts", "%s is not a placeholder of this job; there are %s", compiled.Unknown[0].Text, placeholders(p.columns()))
	default:
		p.result.NameParts = pattern
	}
}

// names refuses a job two parts of which would have the same name, or one that no part can have.
func (p *planner) names(ctx context.Context) error {
	if p.result.NameParts == "" || len(p.errs) > 0 || p.result.Deferred != nil {
		return nil
	}
	tasks := p.result.Stages[0].Tasks
	if tasks > namesMax {
		p.fail("name_parts", "a job of %d tasks is too large for names of its own: at most %d; leave the parts part-NNNNN, or give a task more to do (--split, --batch)", tasks, namesMax)
		return nil
	}
	if p.opt.Turn != nil {
		if err := p.opt.Turn(8 * tasks); err != nil {
			return err
		}
	}
	check := nameCheck{planner: p, tasks: tasks, seed: maphash.MakeSeed()}
	err := check.run(ctx)
	if bad, ok := errors.AsType[*partname.Error](err); ok {
		p.fail("name_parts", "the part of %s would have the name %q: %v", p.taskText(check.at), clip(bad.Name), bad.Err)
		return nil
	}
	return err
}

// nameCheck looks for names that are equal but for case, which some file systems ignore, and for names that others have as a folder. Names are
// compared as hashes; the second time, those whose hashes are equal, themselves.
type nameCheck struct {
	planner *planner
	tasks   uint64
	seed    maphash.Seed
	at      uint64 // the task whose name is found out
}

// each calls visit with the name of each task.
func (c *nameCheck) each(ctx context.Context, visit func(task uint64, name string) error) error {
	names := partname.New(c.planner.result.NameParts, &c.planner.result.Input, c.tasks)
	for c.at = 0; c.at < c.tasks; c.at++ {
		if c.at%(1<<16) == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name, err := names.Name(c.at)
		if err == nil {
			err = visit(c.at, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *nameCheck) hash(name string) uint64 { return maphash.String(c.seed, strings.ToLower(name)) }

func (c *nameCheck) run(ctx context.Context) error {
	hashes := make([]uint64, 0, c.tasks)
	var folders []uint64
	compactAt := 1 << 10
	last := "" // folder
	var above []string
	if err := c.each(ctx, func(_ uint64, name string) error {
		hashes = append(hashes, c.hash(name))
		folder := name[:max(0, strings.LastIndexByte(name, '/'))]
		if folder == last {
			return nil
		}
		last = folder
		above = layout.Folders(above[:0], name)
		for _, folder := range above {
			folders = append(folders, c.hash(folder))
		}
		if len(folders) > compactAt {
			slices.Sort(folders)
			folders = slices.Compact(folders)
			compactAt = 2*len(folders) + 1<<10
		}
		if len(folders) > 2*nameFoldersMax {
			c.planner.fail("name_parts", "the names have more than %d folders: leave out a placeholder before /", nameFoldersMax)
			return errFolders
		}
		return nil
	}); err != nil {
		if errors.Is(err, errFolders) {
			return nil
		}
		return err
	}
	slices.Sort(hashes)
	slices.Sort(folders)
	for i, h := range hashes {
		_, isFolder := slices.BinarySearch(folders, h)
		if isFolder || i > 0 && hashes[i-1] == h {
			if found, err := c.compare(ctx, h); found || err != nil {
				return err
			}
		}
	}
	return nil
}

var errFolders = errors.New("too many folders")

// compare fails the request if two names with this hash are equal, or one is a folder of the other.
func (c *nameCheck) compare(ctx context.Context, hash uint64) (found bool, err error) {
	type named struct {
		task   uint64
		name   string // up to the folder
		folder bool
	}
	var same []named
	errFound := errors.New("found")
	err = c.each(ctx, func(task uint64, name string) error {
		p := c.planner
		here := []named{{task, name, false}}
		for _, folder := range layout.Folders(nil, name) {
			here = append(here, named{task, folder, true})
		}
		for _, n := range here {
			if c.hash(n.name) != hash {
				continue
			}
			lower := strings.ToLower(n.name)
			i := slices.IndexFunc(same, func(other named) bool {
				return strings.ToLower(other.name) == lower && (!other.folder || !n.folder)
			})
			if i < 0 {
				if len(same) < 100 {
					same = append(same, n)
				}
				continue
			}
			other := same[i]
			first, second := p.taskText(other.task), p.taskText(task)
			switch {
			case other.folder || n.folder:
				p.fail("name_parts", "the name %q of a part of %s and %s would be a file and a folder: use another pattern", clip(n.name), first, second)
			case other.name != n.name:
				p.fail("name_parts", "the parts of %s and %s would have names that differ only in case, which some file systems ignore: %q and %q; tell them apart with another placeholder, such as {#}",
					first, second, clip(other.name), clip(n.name))
			default:
				p.fail("name_parts", "the parts of %s and %s would have the same name, %q: tell them apart with another placeholder, such as {#}", first, second, clip(n.name))
			}
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// taskText names a task by what it reads.
func (p *planner) taskText(task uint64) string {
	in := state.NewInputReader(&p.result.Input)
	split, err := in.Split(task)
	r := partname.Reads(in, task)
	switch n := r.Len(); {
	case err == nil && split.Length < split.Version.Size:
		return fmt.Sprintf("task %d (%q, bytes %d to %d)", task, clip(r.Name(0)), r.Offset, r.Offset+r.Length)
	case n > 1:
		return fmt.Sprintf("task %d (%q and %d more)", task, clip(r.Name(0)), n-1)
	case n == 1 && r.Name(0) != "":
		return fmt.Sprintf("task %d (%q)", task, clip(r.Name(0)))
	}
	return fmt.Sprintf("task %d", task)
}

// placeholders lists the placeholders of items with these columns.
func placeholders(columns []string) string {
	const columnsShown = 20
	there := []string{"{} {.} {/} {//} {/.} {#}"}
	for i, name := range columns[:min(len(columns), columnsShown)] {
		there = append(there, fmt.Sprintf("{%d}", i+1))
		if name != "" {
			there = append(there, "{"+name+"}")
		}
	}
	if len(columns) > columnsShown {
		there = append(there, "…")
	}
	return strings.Join(there, " ")
}
