package keeper

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHeldOutlivesItsOwner: a lock that the owner of a keeper has taken lasts until the keeper has ended. Its commands do not have the file.
func TestHeldOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var files [2]*os.File
	for i := range files {
		var err error
		if files[i], err = os.OpenFile(f.path("lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			t.Fatal(err)
		}
		defer files[i].Close() //nolint:errcheck // not written to
	}
	lock := func(i int) error { return unix.Flock(int(files[i].Fd()), unix.LOCK_EX|unix.LOCK_NB) } //nolint:gosec // a file descriptor is small
	if err := lock(0); err != nil {
		t.Fatal(err)
	}
	f.keeper.Held = files[0]
	f.script("ls -l /proc/$$/fd")
	if end, err := f.keeper.Wait(); err != nil || end.Status != 0 {
		t.Fatalf("Wait() = %+v, %v", end, err)
	}
	if text := f.output(); text == "" || strings.Contains(text, f.path("lock")) {
		t.Errorf("the command has the files %q, want not %s", text, f.path("lock"))
	}
	if err := files[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := lock(1); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("lock while the keeper lives: %v, want %v", err, unix.EWOULDBLOCK)
	}
	if err := f.keeper.Close(); err != nil {
		t.Fatal(err)
	}
	if err := lock(1); err != nil {
		t.Errorf("lock after the keeper has ended: %v", err)
	}
}
