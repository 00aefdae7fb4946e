//go:build linux

package replica

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// device is a file system of its own on an image file. What the image holds is what reached the device: writes that were not
// fsynced are in the page cache of the mount only.
type device struct {
	t     *testing.T
	image string
	dir   string // where it is mounted
}

// newDevice makes one, or skips the test and says why.
func newDevice(t *testing.T) *device {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting a file system whose power can be cut needs root")
	}
	d := &device{t: t, image: filepath.Join(t.TempDir(), "image")}
	f, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(512 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
		t.Skipf("skipped: making a file system whose power can be cut: %v: %s", err, out)
	}
	d.mount()
	return d
}

// mount mounts it. The journal of the file system is not written by the clock: only what is fsynced gets out, within a test.
func (d *device) mount() {
	d.t.Helper()
	d.dir = d.t.TempDir()
	if out, err := exec.CommandContext(d.t.Context(), "mount", "-o", "loop,commit=300", d.image, d.dir).CombinedOutput(); err != nil {
		d.t.Skipf("skipped: mounting a file system whose power can be cut: %v: %s", err, out)
	}
	dir := d.dir
	d.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // most often it is unmounted already
}

// losePower goes on with what is on the device now.
func (d *device) losePower() {
	d.t.Helper()
	after := filepath.Join(d.t.TempDir(), "image")
	if out, err := exec.CommandContext(d.t.Context(), "cp", "--sparse=always", d.image, after).CombinedOutput(); err != nil {
		d.t.Fatalf("copy the device: %v: %s", err, out)
	}
	if err := unix.Unmount(d.dir, 0); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Remove(d.image); err != nil {
		d.t.Fatal(err)
	}
	d.image = after
	d.mount()
}

// TestNothingAcknowledgedIsLostWithThePower lets a process propose on a device whose power fails, again and again, and looks for what
// it has acknowledged. Without the fsync of the log, or of a snapshot before the log is cut, it fails in its first lives.
func TestNothingAcknowledgedIsLostWithThePower(t *testing.T) {
	d := newDevice(t)
	acknowledged := -1
	for life := range 6 {
		acknowledged = oneLife(t, filepath.Join(d.dir, "data"), acknowledged, 20+250*life)
		d.losePower()
	}
	n := start(t, Config{Dir: filepath.Join(d.dir, "data")}).lead()
	first, err := strconv.Atoi(string(n.snapshot))
	if err != nil {
		t.Fatalf("no snapshot was taken on the way: %v", err)
	}
	n.wantNumbers(first, max(acknowledged+1, first+len(n.entries)))
	n.stop()
	if err := unix.Unmount(d.dir, 0); err != nil {
		t.Error(err)
	}
}
