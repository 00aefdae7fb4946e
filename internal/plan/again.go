package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/state"
)

// changedMax bounds the files that a retry reads in their new form: they travel in one log entry.
const changedMax = 100_000

// Again examines the files of a job's input again, for a retry. It returns those that are not cut and are not what they were, by task, to be
// read as they are now: also one that has only grown, which may have been rewritten. A file of several splits that has changed, and one
// that is gone, is an error of type Errors: its splits no longer fit together.
func Again(ctx context.Context, in *state.Input, stores blob.Stores) ([]state.FileChange, error) {
	if in.Kind != state.InputFiles {
		return nil, nil
	}
	const readers = 8 // a network file system takes its time for each file
	a := again{stores: stores}
	blocks := make(chan int)
	var wg sync.WaitGroup
	for range min(readers, len(in.Blocks)) {
		wg.Go(func() {
			for b := range blocks {
				a.block(ctx, in, b)
			}
		})
	}
	for b := range in.Blocks {
		blocks <- b
	}
	close(blocks)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if n := len(a.changed); n > changedMax {
		a.refuse(0, "%d files have changed since the job was submitted, more than %d: submit it again", n, changedMax)
	}
	if len(a.refused) > 0 {
		return nil, a.errors()
	}
	var last latest
	for i := range a.changed {
		last.add(a.changed[i].Version.Modified)
	}
	if err := last.settle(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(a.changed, func(x, y state.FileChange) int {
		return cmp.Or(cmp.Compare(x.Task, y.Task), cmp.Compare(x.File, y.File))
	})
	return a.changed, nil
}

// again is one call of Again.
type again struct {
	stores blob.Stores

	mu      sync.Mutex // guards what follows
	changed []state.FileChange
	refused []refusal // the first that were found
	more    int       // refusals that were dropped
}

// refusal is a file with which the job cannot be run again.
type refusal struct {
	task    uint64
	message string
}

func (a *again) refuse(task uint64, format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.refused) == errorsMax {
		a.more++
		return
	}
	a.refused = append(a.refused, refusal{task, fmt.Sprintf(format, args...)})
}

func (a *again) block(ctx context.Context, in *state.Input, b int) {
	files, err := in.Files(b)
	if err != nil {
		a.refuse(in.Blocks[b].First, "%v", err)
		return
	}
	for i := range files {
		if ctx.Err() != nil {
			return
		}
		if f := &files[i]; f.Version.Known() {
			a.file(ctx, f)
		}
	}
}

func (a *again) file(ctx context.Context, f *state.File) {
	store, name, err := a.stores.Open(string(f.Path))
	var info blob.Info
	if err == nil {
		info, err = store.Stat(ctx, name)
	}
	was := blob.Version{Size: int64(f.Version.Size), Modified: f.Version.Modified, Identity: f.Version.Identity} //nolint:gosec // of a file
	change := was.To(info.Version)
	if err == nil && change == blob.Grown && f.Version.Tail != 0 && !a.sameTail(ctx, store, name, f) {
		change = blob.Changed
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.refuse(f.Task, "input %q does not exist any more on the leader's machine: put it back, or submit the job again", f.Path)
	case err != nil:
		a.refuse(f.Task, "input %q: %v", f.Path, err)
	case info.Folder:
		a.refuse(f.Task, "input %q is a folder now: put the file back, or submit the job again", f.Path)
	case change == blob.Same, f.Splits > 1 && change == blob.Grown:
	case f.Splits > 1:
		then, now := was.Difference(info.Version)
		a.refuse(f.Task, "input %q has changed since the job was submitted: it was %s; it is %s; the job reads it in %d splits, so it cannot read "+
			"it in its new form: submit it again", f.Path, then, now, f.Splits)
	default:
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed = append(a.changed, state.FileChange{
			Task: f.Task, File: f.Place, Version: state.Version{Size: uint64(info.Size), Modified: info.Modified, Identity: info.Identity}, //nolint:gosec // of a file
		})
	}
}

// sameTail reports whether the bytes before the end that a file had are what they were.
func (a *again) sameTail(ctx context.Context, store blob.Store, name blob.Location, f *state.File) bool {
	file, err := store.Open(ctx, name, 0)
	if err != nil {
		return false
	}
	defer file.Close()                                     //nolint:errcheck // only read from
	tail, err := blob.TailSum(file, int64(f.Version.Size)) //nolint:gosec // of a file
	return err == nil && tail == f.Version.Tail
}

// errors returns the refusals in the order of the files.
func (a *again) errors() Errors {
	slices.SortFunc(a.refused, func(x, y refusal) int { return cmp.Compare(x.task, y.task) })
	var errs Errors
	for _, r := range a.refused {
		errs = append(errs, &Error{Field: "inputs", Message: r.message})
	}
	if a.more > 0 {
		errs = append(errs, &Error{Field: "inputs", Message: "changed or gone: " + state.Counted(a.more, "more file")})
	}
	return errs
}
