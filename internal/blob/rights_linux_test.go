package blob_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/blob/blobtest"
)

func TestCheckWritable(t *testing.T) {
	dir := t.TempDir()
	s := blob.NewFiles()
	blobtest.Put(t, s, blob.Location(dir+"/file"), "")
	must(t, os.Symlink("nowhere", dir+"/link"))
	must(t, os.Mkdir(dir+"/closed", 0o555))
	for name, want := range map[string]string{
		"":            "",
		"/new/er":     "",
		"/file":       "not a directory",
		"/file/below": "not a directory",
		"/link/x":     "dangling link",
		"/closed/x":   "permission denied for user",
	} {
		err := asNobody(t, dir, name == "/closed/x", func() error { return s.CheckWritable(t.Context(), blob.Location(dir+name)) })
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("CheckWritable(%q) = %v, want %q", name, err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("CheckWritable left %v, %v", entries, err)
	}
}

// TestCheckWritableWhileItIsCreated: another process creates the folder between two looks at it.
func TestCheckWritableWhileItIsCreated(t *testing.T) {
	dir := t.TempDir() + "/out"
	s := blob.NewFiles()
	stop := make(chan struct{})
	var creator sync.WaitGroup
	creator.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = syscall.Mkdir(dir, 0o777), syscall.Rmdir(dir) // both work: nothing else uses it
			}
		}
	})
	for range 20_000 {
		if err := s.CheckWritable(t.Context(), blob.Location(dir)); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	creator.Wait()
}

// TestCreateWhileFoldersAreRemoved: another job that ends removes the folders that are empty, up to the one that both have in common.
func TestCreateWhileFoldersAreRemoved(t *testing.T) {
	dir := t.TempDir()
	s := blob.NewFiles()
	stop := make(chan struct{})
	var remover sync.WaitGroup
	remover.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = syscall.Rmdir(dir+"/_temporary/uid"), syscall.Rmdir(dir+"/_temporary") // if they are empty
			}
		}
	})
	for range 500 {
		w, err := s.Create(t.Context(), blob.Location(dir+"/_temporary/uid/map-0-1"), "")
		if err != nil {
			t.Error(err)
			break
		}
		w.Abort()
	}
	close(stop)
	remover.Wait()
}

// asNobody calls do without root's privileges if drop is true.
func asNobody(t *testing.T, dir string, drop bool, do func() error) error {
	t.Helper()
	if !drop || os.Geteuid() != 0 {
		return do()
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	result := make(chan error)
	go func() {
		// Only this thread changes its user, and it ends with the goroutine.
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			result <- errno
			return
		}
		result <- do()
	}()
	return <-result
}
