package worker

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// TestRemoveStage: the files of other stages, of later leases, and what no attempt has written stay.
func TestRemoveStage(t *testing.T) {
	job := &wire.Job{Id: 1, Uid: "abc", Output: t.TempDir()}
	private := filepath.Join(job.GetOutput(), "_temporary", "abc")
	if err := os.MkdirAll(private, 0o755); err != nil {
		t.Fatal(err)
	}
	stay := []string{"_OURS", "map-2-10", "map_2-0-1", "reduce-0-9"}
	for _, name := range append([]string{"map-0-1", "map-1-9"}, stay...) {
		if err := os.WriteFile(filepath.Join(private, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := newDisk(runner.Users{}, slog.New(slog.DiscardHandler))
	d.removeStageLater(core.RemoveStage{Job: job, Stage: "map", Lease: 9})
	d.removeAll(t.Context())
	entries, err := os.ReadDir(private)
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if err != nil || !slices.Equal(left, stay) {
		t.Errorf("%q is left, %v; want %q", left, err, stay)
	}
}
