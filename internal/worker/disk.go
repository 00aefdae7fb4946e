package worker

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// disk fsyncs attempts' files in groups, and removes those of attempts that lost.
type disk struct {
	stores blob.Stores
	logger *slog.Logger
	sync   chan []core.AttemptRef // holds one: the core has one under way
	wake   chan struct{}          // holds one: there is something to remove

	mu     sync.Mutex
	remove []core.AttemptRef // bounded by the number of leases
}

func newDisk(stores blob.Stores, logger *slog.Logger) *disk {
	return &disk{stores: stores, logger: logger, sync: make(chan []core.AttemptRef, 1), wake: make(chan struct{}, 1)}
}

// runSync works until its channel is closed.
func (d *disk) runSync(ctx context.Context, post func(core.Input)) {
	for files := range d.sync {
		post(core.Synced{Errs: d.syncAll(ctx, files)})
	}
}

// syncAll syncs files together, and one by one if that fails: one bad file must fail one attempt only.
func (d *disk) syncAll(ctx context.Context, files []core.AttemptRef) []error {
	names := make([]blob.Location, len(files))
	for i, f := range files {
		names[i] = attemptPath(f)
	}
	err := d.stores.Sync(ctx, names...)
	if err == nil {
		return nil
	}
	if len(names) == 1 {
		return []error{err}
	}
	errs := make([]error, len(names))
	for i, name := range names {
		errs[i] = d.stores.Sync(ctx, name)
	}
	return errs
}

func (d *disk) removeLater(files []core.AttemptRef) {
	d.mu.Lock()
	d.remove = append(d.remove, files...)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// runRemove works until wake is closed, and then removes the rest.
func (d *disk) runRemove(ctx context.Context) {
	for range d.wake {
		d.removeAll(ctx)
	}
	d.removeAll(ctx)
}

func (d *disk) removeAll(ctx context.Context) {
	d.mu.Lock()
	files := d.remove
	d.remove = nil
	d.mu.Unlock()
	var folders []blob.Location
	for _, f := range files {
		store, err := d.stores.Of(attemptPath(f))
		if err == nil {
			err = store.Remove(ctx, attemptPath(f))
		}
		if err != nil {
			d.logger.WarnContext(ctx, "file of a lost attempt not removed", "file", attemptPath(f), "error", err)
		}
		if folder := attemptFolder(f.Job); !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	// An attempt of a worker that was cut off may outlive its job and create these folders again. Folders in use are not empty,
	// or are created when needed.
	for _, folder := range folders {
		for _, dir := range []blob.Location{folder, folder.Dir()} {
			store, err := d.stores.Of(dir)
			if err == nil {
				err = store.RemoveEmpty(ctx, dir)
			}
			if err != nil {
				d.logger.WarnContext(ctx, "folder of a lost attempt not removed", "folder", dir, "error", err)
			}
		}
	}
}

// attemptPath is the path of an attempt's file.
func attemptPath(a core.AttemptRef) blob.Location {
	return attemptFolder(a.Job).Join(layout.Attempt(a.Stage, a.Index, a.Lease))
}
