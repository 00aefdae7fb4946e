//go:build linux

package runner

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestFullDisk fills a small file system.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no full disk can be had here: mount: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	fill := func(_ context.Context, t *bridgefour.Task) error {
		_, err := t.Out().WriteString(strings.Repeat("x", 4<<20))
		return err
	}
	f := newBuiltin(t, &wire.Job{}, fill)
	f.output = filepath.Join(disk, "out")
	f.job.Output = f.output
	f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_OUTPUT_ERROR, f.output, "no space left on device", "of 1.0 MiB left", "make room", "then run the failed tasks again")

	f = shell(t, &wire.Job{}, "head -c 4000000 /dev/zero")
	f.output = filepath.Join(disk, "out")
	f.job.Output = f.output
	f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_OUTPUT_ERROR, f.output, "no space left on device", "of 1.0 MiB left", "make room", "then run the failed tasks again")

	f = shell(t, &wire.Job{}, "echo there is room again")
	f.output = filepath.Join(disk, "out")
	f.job.Output = f.output
	f.want(f.run(t.Context(), nil), "there is room again\n")
	closeSlot(t, f.slot)
}
