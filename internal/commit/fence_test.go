package commit_test

import (
	"errors"
	"testing"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/commit"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// TestSuperseded: what a job publishes or removes gives way to that of a job of its cluster which got the lock later, and to no other.
func TestSuperseded(t *testing.T) {
	store := blob.NewFiles()
	dir := blob.Location(t.TempDir())
	fenced := func(uid, cluster string, fence uint64) *job {
		j := newJob(dir, 3)
		j.out.UID, j.out.Overwrite = uid, true
		j.out.Manifest.Name, j.out.Manifest.Cluster, j.out.Manifest.Fence = uid, cluster, fence
		j.prepare(t, store)
		return j
	}
	publish := func(j *job) error {
		_, err := commit.Publish(t.Context(), store, j.out, j.seq())
		return err
	}
	late := fenced("late", "c1", 5)
	if err := publish(fenced("winner", "c1", 6)); err != nil {
		t.Fatal(err)
	}
	var superseded *commit.SupersededError
	if err := publish(late); !errors.As(err, &superseded) || superseded.Later != 6 {
		t.Errorf("Publish of a job whose lock has gone = %v, want a SupersededError", err)
	}
	if err := commit.Abort(t.Context(), store, late.out); err != nil {
		t.Errorf("Abort of that job = %v", err)
	}
	if _, err := store.Stat(t.Context(), dir.Join(layout.Success)); err != nil {
		t.Errorf("the manifest of the winner: %v", err)
	}
	for _, j := range []*job{fenced("next", "c1", 7), fenced("other", "c2", 1), fenced("none", "", 0), fenced("again", "c2", 2)} {
		if err := publish(j); err != nil {
			t.Errorf("Publish of %s = %v", j.out.UID, err)
		}
	}
	// One that has claimed the folder, and not published yet.
	claimed := fenced("claimed", "c2", 9)
	w, err := store.Create(t.Context(), "", dir.Join(layout.Private(claimed.out.UID)).Join(layout.Mark))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("c2 9\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := publish(fenced("later", "c2", 8)); !errors.As(err, &superseded) || superseded.Later != 9 {
		t.Errorf("Publish in a folder that is claimed = %v, want a SupersededError", err)
	}
}
