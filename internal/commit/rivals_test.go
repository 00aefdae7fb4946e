package commit_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/blob/blobtest"
	"github.com/bridgefour/bridgefour/internal/commit"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// TestRivals publishes independent jobs in one folder at once: one succeeds completely, the others fail with an OccupiedError.
func TestRivals(t *testing.T) {
	store := blob.NewFiles()
	for range 10 {
		dir := blob.Location(t.TempDir())
		rivals := make([]*job, 4)
		errs := make([]error, len(rivals))
		for i := range rivals {
			rivals[i] = newJob(dir, 100)
			rivals[i].out.UID = fmt.Sprintf("rival-%d", i)
			rivals[i].out.Manifest.Name = rivals[i].out.UID
			rivals[i].prepare(t, store)
		}
		var wg sync.WaitGroup
		for i, j := range rivals {
			wg.Go(func() { _, errs[i] = commit.Publish(t.Context(), store, j.out, j.seq()) })
		}
		wg.Wait()
		winners := 0
		for i, err := range errs {
			var occupied *commit.OccupiedError
			switch {
			case err == nil:
				winners++
				manifest := blobtest.Get(t, store, dir+"/_SUCCESS")
				if !strings.Contains(manifest, rivals[i].out.UID) {
					t.Errorf("%s has published, and the manifest is %s", rivals[i].out.UID, manifest)
				}
			case !errors.As(err, &occupied):
				t.Errorf("Publish = %v, want an OccupiedError", err)
			}
		}
		if winners != 1 {
			t.Fatalf("%d of %d have published, want 1", winners, len(rivals))
		}
	}
}

// TestEmptyPart checks the checksum of an empty part.
func TestEmptyPart(t *testing.T) {
	store := blobtest.NewMemory()
	j := newJob(dir, 1)
	j.parts[0].Size, j.parts[0].Checksum = 0, 0
	j.text[layout.Part(0, 1)] = ""
	j.prepare(t, store)
	j.publish(t, store)
	if manifest, want := blobtest.Get(t, store, dir+"/_SUCCESS"), fmt.Sprintf(`"xxh64":"%016x"`, xxhash.Sum64(nil)); !strings.Contains(manifest, want) {
		t.Errorf("manifest = %s, want %s in it", manifest, want)
	}
}
