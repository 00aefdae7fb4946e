package plan

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/state"
)

// locks parses the named locks of the job.
func (p *planner) locks() {
	switch p.req.OnConflict {
	case "", "wait":
	case "fail":
		p.result.FailOnConflict = true
	default:
		p.fail("on_conflict", "%q: want wait or fail", p.req.OnConflict)
	}
	if n := len(p.req.Locks); n > state.LockNamesMax {
		p.fail("locks", "%d locks are too many: at most %d", n, state.LockNamesMax)
		return
	}
	var names []state.LockName
	for _, text := range p.req.Locks {
		name, err := lockName(text)
		if err != nil {
			p.fail("locks", "%v", err)
			return
		}
		names = append(names, name)
	}
	names, err := state.CleanLocks(names)
	if err != nil {
		p.fail("locks", "%v", err)
		return
	}
	p.result.Locks = names
}

// lockName parses NAME, NAME:shared or NAME:exclusive. The last colon is before the mode, so that a mistyped mode is not part of another name.
func lockName(text string) (state.LockName, error) {
	at := strings.LastIndexByte(text, ':')
	if at < 0 {
		return state.LockName{Name: text}, nil
	}
	switch name, mode := text[:at], text[at+1:]; mode {
	case api.LockShared, api.LockExclusive:
		return state.LockName{Name: name, Shared: mode == api.LockShared}, nil
	default:
		return state.LockName{}, fmt.Errorf("lock %q: unknown mode %q: want NAME, NAME:shared or NAME:exclusive; a name with a colon needs a mode: %s:exclusive", text, mode, text)
	}
}

// data names what the job reads and writes, for its locks: locations without links.
func (p *planner) data(ctx context.Context) error {
	if p.bases == nil {
		if err := p.places(ctx); err != nil {
			return err
		}
	}
	p.result.Data = shared(append(p.bases, slices.Collect(maps.Keys(p.linked))...))
	if p.realOutput != "" {
		p.result.Data = append(p.result.Data, state.LockName{Name: string(p.realOutput)})
	}
	return nil
}

// places sets where the inputs are. What lies in the spool needs no lock: nothing writes there but the job that it is of.
func (p *planner) places(ctx context.Context) error {
	bases := []blob.Location{}
	for _, text := range p.req.Inputs {
		base, err := p.realBase(ctx, text)
		if err != nil {
			return err
		}
		if !p.spooled(base) {
			bases = append(bases, base)
		}
	}
	p.bases = bases
	return nil
}

func (p *planner) spooled(l blob.Location) bool { return p.opt.Spool != "" && isBelow(l, p.opt.Spool) }

// link notes where a link leads that is followed below an input. The job reads there too.
func (p *planner) link(field string, target blob.Location) {
	if _, known := p.linked[target]; known || p.spooled(target) {
		return
	}
	if p.linked == nil {
		p.linked = map[blob.Location]struct{}{}
	}
	p.linked[target] = struct{}{}
	p.outputApart(field, target, target)
}

// shared are the names of the locks on locations that are read.
func shared(list []blob.Location) []state.LockName {
	var names []state.LockName
	for _, l := range fewer(list, state.LockDataMax-1) {
		names = append(names, state.LockName{Name: string(l), Shared: true})
	}
	return names
}

// realBase is the location of an input without links; of a pattern, that of its fixed part.
func (p *planner) realBase(ctx context.Context, text string) (blob.Location, error) {
	store, name, err := p.opt.Stores.Open(text)
	if err != nil {
		return "", fmt.Errorf("input %w", err)
	}
	if base := fixedPart(blob.Location(path.Clean(text))); isPattern(text) && len(base) < len(name) {
		if _, err := store.Stat(ctx, name); err != nil { // else it is the name of a file
			name = base
		}
	}
	return store.Resolve(ctx, name), nil
}

// fewer returns locations without those that lie below others, and if more than most are left, with the deepest ones replaced by their folders.
func fewer(list []blob.Location, most int) []blob.Location {
	depth := func(l blob.Location) int { return strings.Count(string(l), "/") }
	for {
		slices.Sort(list)
		list = slices.Compact(list)
		above := map[blob.Location]struct{}{}
		for _, l := range list {
			above[l] = struct{}{}
		}
		list = slices.DeleteFunc(list, func(l blob.Location) bool {
			for dir := l; !dir.IsRoot(); {
				dir = dir.Dir()
				if _, ok := above[dir]; ok {
					return true
				}
			}
			return false
		})
		if len(list) <= most {
			return list
		}
		deepest := 0
		for _, l := range list {
			deepest = max(deepest, depth(l))
		}
		for i, l := range list {
			if depth(l) == deepest {
				list[i] = l.Dir()
			}
		}
	}
}
