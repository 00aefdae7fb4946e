package commit

import (
	"context"
	"fmt"
	"io"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// SupersededError reports that the output folder is of a job that got the lock on it later: the attempt that publishes was cut off from its leader
// meanwhile, and nothing of the folder but its private part is its own any more.
type SupersededError struct {
	Dir          blob.Location
	Fence, Later uint64
}

func (e *SupersededError) Error() string {
	return fmt.Sprintf("output %q: the lock on it, number %d, is no longer this job's: another job has published there under number %d", e.Dir, e.Fence, e.Later)
}

// superseded returns a SupersededError if another job of the cluster has claimed or published the output under a larger fencing number.
func superseded(ctx context.Context, store blob.Store, out Output) error {
	own := &out.Manifest
	if own.Fence == 0 || own.Cluster == "" {
		return nil
	}
	later := func(other *api.Manifest) error {
		if other.Cluster == own.Cluster && other.Fence > own.Fence {
			return &SupersededError{out.Dir, own.Fence, other.Fence}
		}
		return nil
	}
	for _, manifest := range []string{layout.Success, layout.Partial} {
		head, err := headOf(ctx, store, out.Dir.Join(manifest))
		if err == nil && head.UID != out.UID {
			err = later(&head)
		}
		if err != nil {
			return err
		}
	}
	privates, err := privateFolders(ctx, store, out.Dir)
	if err != nil {
		return err
	}
	for _, private := range privates {
		if private == out.private() {
			continue
		}
		mark, err := readMark(ctx, store, private)
		if err == nil {
			err = later(&mark)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setMark sets the mark durably: the folder is claimed, under the fencing number of the lock.
func setMark(ctx context.Context, store blob.Store, out Output) error {
	w, err := store.Create(ctx, "", out.private().Join(layout.Mark))
	if err != nil {
		return err
	}
	if out.Manifest.Cluster != "" {
		if _, err := fmt.Fprintln(w, out.Manifest.Cluster, out.Manifest.Fence); err != nil {
			w.Abort()
			return err
		}
	}
	return w.Commit()
}

const markBytesMax = 256

// readMark returns what the mark of another job says; nothing, if there is none, or it says nothing.
func readMark(ctx context.Context, store blob.Store, private blob.Location) (mark api.Manifest, err error) {
	file, err := store.Open(ctx, private.Join(layout.Mark), 0)
	if blob.IsMissing(err) {
		return mark, nil
	}
	if err != nil {
		return mark, err
	}
	if _, err := fmt.Fscan(io.LimitReader(file, markBytesMax), &mark.Cluster, &mark.Fence); err != nil { // of an earlier version
		mark = api.Manifest{}
	}
	return mark, file.Close()
}
