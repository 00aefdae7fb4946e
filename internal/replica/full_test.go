//go:build linux

package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// smallDisk mounts a disk of its own that ends with the test.
func smallDisk(t *testing.T, bytes int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting a small tmpfs to fill needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("replica-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("skipped: mounting a small tmpfs to fill: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves free bytes on the disk of dir.
func fill(t *testing.T, dir string, free int64) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err = unix.ENOSPC; errors.Is(err, unix.ENOSPC); { // the log may be preparing a file at this moment
		have, ferr := freeBytes(dir)
		if ferr != nil {
			t.Fatal(ferr)
		}
		if have <= free {
			err = nil
			break
		}
		err = unix.Fallocate(int(f.Fd()), 0, 0, have-free)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return ballast
}

// proposeUntilRefused proposes numbers from i on and gives the first that was not taken, and why.
func (n *node) proposeUntilRefused(i, size int) (int, error) {
	for ; ; i++ {
		if err := n.Propose(context.Background(), numbered(i, size)); err != nil {
			return i, err
		}
	}
}

func (n *node) untilRoom() {
	n.t.Helper()
	n.until("room", func() bool { return n.full == nil && n.fulls > 0 })
}

func TestLogStopsBeforeTheDiskIsFullAndGoesOn(t *testing.T) {
	disk := smallDisk(t, 160<<20)
	dir := filepath.Join(disk, "data")
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 10, 1000)
	n.untilEntries(10)
	next := 10
	for round := range 3 {
		ballast := fill(t, disk, reserveBytes/2)
		var err error
		next, err = n.proposeUntilRefused(next, 1000)
		if !errors.Is(err, ErrLogFull) || !containsAll(err.Error(), dir, "MB free", "make room") {
			t.Fatalf("round %d: Propose on a full disk = %v", round, err)
		}
		n.untilEntries(next) // what was taken stands, and there is room for it
		n.until("the event", func() bool { return n.full != nil })
		if !errors.Is(n.Status().LogFull, ErrLogFull) {
			t.Errorf("round %d: Status().LogFull = %v", round, n.Status().LogFull)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		n.untilRoom()
		n.proposeNumbers(next, next+10, 1000)
		next += 10
		n.untilEntries(next)
	}
	n.stop()
	start(t, Config{Dir: dir}).lead().wantNumbers(0, next)
}

// TestRealENOSPC takes the reserve away, so that the log's own writes fail, each time at another place.
func TestRealENOSPC(t *testing.T) {
	for _, size := range []int{10_000, 100_000, 3_000_000} {
		for _, free := range []int64{8 << 20, 2*testSegmentBytes + 123_456} {
			t.Run(fmt.Sprintf("%d_of_%d", size, free), func(t *testing.T) { testRealENOSPC(t, size, free) })
		}
	}
	t.Run("entries_larger_than_a_file", func(t *testing.T) { testRealENOSPC(t, 2*testSegmentBytes, 10<<20) })
}

func testRealENOSPC(t *testing.T, size int, free int64) {
	t.Helper()
	disk := smallDisk(t, 2*core.InFlightBytesMax+20<<20) // room for all that may be in flight, twice
	dir := filepath.Join(disk, "data")
	ballast := fill(t, disk, free)
	open := func() *node {
		t.Helper()
		r, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		r.reserve, r.checkEvery = 0, 5*time.Millisecond
		return run(t, r)
	}
	n := open().lead()
	next, err := n.proposeUntilRefused(0, size)
	if !errors.Is(err, ErrLogFull) || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Propose on a full disk = %v", err)
	}
	n.until("the event", func() bool { return n.full != nil })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n.untilRoom()
	n.wantNumbers(0, next) // all that was taken, without proposing it again
	n.proposeNumbers(next, next+3, size)
	n.wantNumbers(0, next+3)
	next += 3
	if err := n.saveCount(); err != nil {
		t.Fatal(err)
	}
	snapshot := next
	n.proposeNumbers(next, next+1, size)
	next++
	n.wantNumbers(0, next)

	// Full again, and the process ends; nothing that was acknowledged is lost.
	ballast = fill(t, disk, 0)
	if next, err = n.proposeUntilRefused(next, size); !errors.Is(err, ErrLogFull) {
		t.Fatalf("Propose on a full disk = %v", err)
	}
	n.until("the event", func() bool { return n.full != nil })
	n.stop()
	acknowledged := len(n.entries)
	if r, err := Open(Config{Dir: dir}); err == nil { // it may get by with what the log had prepared
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	} else if !errors.Is(err, ErrLogFull) {
		t.Errorf("Open on a full disk = %v, want ErrLogFull", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n = open().lead()
	n.wantSnapshot(strconv.Itoa(snapshot))
	got := snapshot + len(n.entries)
	if got < acknowledged || got > next {
		t.Fatalf("%d entries after the restart, %d were acknowledged and %d taken", got, acknowledged, next)
	}
	n.wantNumbers(snapshot, got)
}

func TestNoRoomToBegin(t *testing.T) {
	disk := smallDisk(t, 1<<20)
	if _, err := Open(Config{Dir: filepath.Join(disk, "data")}); !errors.Is(err, ErrLogFull) || !containsAll(err.Error(), disk, "MB free") {
		t.Errorf("Open = %v, want ErrLogFull", err)
	}
}
