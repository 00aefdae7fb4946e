package worker

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// disk fsyncs attempts' files in groups, and removes those of attempts that lost.
type disk struct {
	users  runner.Users
	logger *slog.Logger
	sync   chan []core.ToSync // holds one: the core has one under way
	wake   chan struct{}      // holds one: there is something to remove

	mu     sync.Mutex
	remove []core.AttemptRef // bounded by the number of leases
	stages []core.RemoveStage
}

func newDisk(users runner.Users, logger *slog.Logger) *disk {
	return &disk{users: users, logger: logger, sync: make(chan []core.ToSync, 1), wake: make(chan struct{}, 1)}
}

// runSync works until its channel is closed.
func (d *disk) runSync(ctx context.Context, post func(core.Input)) {
	for files := range d.sync {
		post(core.Synced{Errs: d.syncAll(ctx, files)})
	}
}

// syncAll syncs files. Without a file that this process may open it waits until attempts have ended and closed theirs, up to a minute: the
// worker's lack is no fault of the tasks.
func (d *disk) syncAll(ctx context.Context, files []core.ToSync) []error {
	outOfFiles := func(err error) bool { return errors.Is(err, syscall.EMFILE) }
	errs := d.trySync(ctx, files)
	for tries := range int(time.Minute / filesPause) {
		i := slices.IndexFunc(errs, outOfFiles)
		if i < 0 || ctx.Err() != nil {
			break
		}
		if tries == 0 {
			d.logger.ErrorContext(ctx, "an fsync waits: this worker has too many open files; raise its limit (ulimit -n), or start it with fewer --slots",
				"error", errs[i])
		}
		timer := time.NewTimer(filesPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		errs = d.trySync(ctx, files)
	}
	return errs
}

func (d *disk) trySync(ctx context.Context, files []core.ToSync) []error {
	if d.users.RunAs == "" {
		return d.syncGroup(ctx, files)
	}
	errs := make([]error, 0, len(files)) // files of one job come together
	for len(files) > 0 {
		n := 1
		for n < len(files) && files[n].Job == files[0].Job {
			n++
		}
		group := d.syncGroup(ctx, files[:n])
		if group == nil {
			group = make([]error, n)
		}
		errs, files = append(errs, group...), files[n:]
	}
	return errs
}

// syncGroup syncs files of jobs with the same access together, and one by one if that fails: one bad file must fail one attempt only.
func (d *disk) syncGroup(ctx context.Context, files []core.ToSync) []error {
	names := make([]blob.Location, len(files))
	for i, f := range files {
		names[i] = attemptPath(f.AttemptRef)
	}
	errs := make([]error, len(names))
	access, err := d.users.Of(files[0].Job)
	if err == nil {
		if err = access.Outputs.Sync(ctx, names...); err == nil {
			for i := range files {
				access.Outputs.Uncache(ctx, names[i], files[i].Output)
			}
			return nil
		}
		if len(names) > 1 {
			for i, name := range names {
				errs[i] = access.Outputs.Sync(ctx, name)
			}
			return errs
		}
	}
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (d *disk) removeLater(files ...core.AttemptRef) {
	d.mu.Lock()
	d.remove = append(d.remove, files...)
	d.mu.Unlock()
	d.wakeUp()
}

func (d *disk) removeStageLater(s core.RemoveStage) {
	d.mu.Lock()
	d.stages = append(d.stages, s)
	d.mu.Unlock()
	d.wakeUp()
}

func (d *disk) wakeUp() {
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
	files, stages := d.remove, d.stages
	d.remove, d.stages = nil, nil
	d.mu.Unlock()
	for _, s := range stages {
		if err := d.removeStage(ctx, s); err != nil {
			d.logger.WarnContext(ctx, "files of a stage not removed", "job", s.Job.GetId(), "stage", s.Stage, "error", err)
		}
	}
	var jobs []*wire.Job
	for _, f := range files {
		store, err := d.storeOf(f.Job)
		if err == nil {
			err = store.Remove(ctx, attemptPath(f))
		}
		if err != nil {
			d.logger.WarnContext(ctx, "file of a lost attempt not removed", "file", attemptPath(f), "error", err)
		}
		if !slices.Contains(jobs, f.Job) {
			jobs = append(jobs, f.Job)
		}
	}
	// An attempt of a worker that was cut off may outlive its job and create these folders again. Folders in use are not empty,
	// or are created when needed.
	for _, job := range jobs {
		folder := attemptFolder(job)
		for _, dir := range []blob.Location{folder, folder.Dir()} {
			store, err := d.storeOf(job)
			if err == nil {
				err = store.RemoveEmpty(ctx, dir)
			}
			if err != nil {
				d.logger.WarnContext(ctx, "folder of a lost attempt not removed", "folder", dir, "error", err)
			}
		}
	}
}

// removeStage removes the files of the attempts of a stage up to a lease. It returns the first error, after it has tried all.
func (d *disk) removeStage(ctx context.Context, s core.RemoveStage) error {
	store, err := d.storeOf(s.Job)
	if err != nil {
		return err
	}
	for info, listErr := range store.List(ctx, attemptFolder(s.Job), nil, nil) {
		if listErr != nil {
			err = cmp.Or(err, listErr)
			continue
		}
		name := path.Base(string(info.Name))
		if lease, ok := layout.Lease(name); ok && lease <= s.Lease && strings.HasPrefix(name, s.Stage+"-") {
			err = cmp.Or(err, store.Remove(ctx, info.Name))
		}
	}
	return err
}

// storeOf returns the store of a job's output.
func (d *disk) storeOf(job *wire.Job) (blob.Store, error) {
	access, err := d.users.Of(job)
	if err != nil {
		return nil, err
	}
	return access.Outputs.Of(attemptFolder(job))
}

// attemptPath is the path of an attempt's file.
func attemptPath(a core.AttemptRef) blob.Location {
	return attemptFolder(a.Job).Join(layout.Attempt(a.Stage, a.Index, a.Lease))
}
