package node

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/state"
)

// removedMark marks spool folders that are being deleted.
const removedMark = ".removed-"

// inSpool reports whether a name in the spool is that of a job's folder.
func inSpool(name string) bool {
	uid, _, _ := strings.Cut(name, removedMark)
	_, err := hex.DecodeString(uid)
	return err == nil
}

// sweepSpool finishes deletions that a crash interrupted: of this node when it starts, and, in a shared spool, of other nodes when
// this one starts to lead.
func (n *Node) sweepSpool(ctx context.Context) {
	entries, err := os.ReadDir(n.cfg.Spool)
	if err != nil {
		return // there is no spool yet
	}
	for _, e := range entries {
		if !strings.Contains(e.Name(), removedMark) {
			continue
		}
		if err := removeTree(ctx, filepath.Join(n.cfg.Spool, e.Name())); err != nil && ctx.Err() == nil {
			n.log.WarnContext(ctx, "spool folder not removed", "dir", e.Name(), "error", err)
		}
	}
}

// removeTree is an os.RemoveAll that ctx can interrupt: a folder may contain millions of files.
func removeTree(ctx context.Context, dir string) error {
	for more := true; more; {
		folder, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another node has removed it
		}
		if err != nil {
			return err
		}
		entries, err := folder.ReadDir(removeBatch) // the first ones, each time: those read before are removed
		if more = !errors.Is(err, io.EOF); !more {
			err = nil
		}
		if err = errors.Join(err, folder.Close()); err == nil {
			err = removeEntries(ctx, dir, entries)
		}
		if err != nil {
			return err
		}
	}
	return ignore(os.Remove(dir), fs.ErrNotExist)
}

func removeEntries(ctx context.Context, dir string, entries []fs.DirEntry) error {
	for _, e := range entries {
		path, err := filepath.Join(dir, e.Name()), ctx.Err()
		if err == nil && e.IsDir() {
			err = removeTree(ctx, path)
		} else if err == nil {
			err = ignore(os.Remove(path), fs.ErrNotExist)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeSpool deletes a spool folder in the background. Its name comes from the log. Of a job that still exists, and may run again in
// this folder, only the files from before its end are removed: a leader that was suspended in between may be deposed by now, and
// the job may be running again under the next one.
func (n *Node) removeSpool(dir string) {
	if job := n.spooled(dir); job != nil {
		files := filepath.Join(dir, layout.Private(job.UID))
		fence := job.Fence
		n.loop.helpers.Go(func() { n.removeFenced(files, fence) })
		return
	}
	aside := dir + removedMark + newID()
	switch err := os.Rename(dir, aside); {
	case errors.Is(err, fs.ErrNotExist):
		return // it has no output, or is on another node's disk, or was removed
	case err != nil:
		n.log.Warn("spool folder not removed", "dir", dir, "error", err)
		return
	}
	n.loop.helpers.Go(func() {
		if err := os.RemoveAll(aside); err != nil {
			n.log.Warn("spool folder not removed", "dir", aside, "error", err)
		}
	})
}

// spooled returns the job of a spool folder; nil: it is forgotten.
func (n *Node) spooled(dir string) *state.Job {
	m := n.loop.controller.Machine()
	for _, id := range m.Jobs() {
		if job := m.Job(id); job.Spec.Spool && job.Spec.Output == dir {
			return job
		}
	}
	return nil
}

// removeFenced removes the files of attempts up to a lease, in which their names end.
func (n *Node) removeFenced(dir string, fence state.Lease) {
	folder, err := os.Open(dir)
	if err != nil {
		return // the job has no output here
	}
	for err == nil {
		var names []string
		names, err = folder.Readdirnames(removeBatch)
		for _, name := range names {
			lease, ok := layout.Lease(name)
			if !ok || state.Lease(lease) > fence {
				continue
			}
			if rerr := os.Remove(filepath.Join(dir, name)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				err = rerr
			}
		}
	}
	if cerr := folder.Close(); errors.Is(err, io.EOF) {
		err = cerr
	}
	if err != nil {
		n.log.Warn("spool folder not emptied; it is removed when the job is forgotten", "dir", dir, "error", err)
		return
	}
	// Remove the folders that are empty now: the next run of the job makes its own.
	for range 3 { // OUTPUT/_temporary/UID
		if os.Remove(dir) != nil {
			return
		}
		dir = filepath.Dir(dir)
	}
}

// removeBatch is how many names are read at once: a job may have millions of files.
const removeBatch = 1024
