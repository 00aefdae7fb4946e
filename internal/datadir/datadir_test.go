package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/datadir"
)

func TestLockIsExclusiveUntilClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := datadir.Lock(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := datadir.Lock(path, 0)
	if !errors.Is(err, datadir.ErrLocked) || second == nil {
		t.Fatalf("second Lock() = %v, %v, want the open file and ErrLocked", second, err)
	}
	if err := errors.Join(second.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	third, err := datadir.Lock(path, 0)
	if err != nil {
		t.Fatalf("Lock() after Close() = %v", err)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
}

// TestLockIsAwaited: a process that was killed keeps its lock for a moment.
func TestLockIsAwaited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := datadir.Lock(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, func() { _ = first.Close() })
	second, err := datadir.Lock(path, time.Minute)
	if err != nil {
		t.Fatalf("Lock() with a timeout = %v, want to wait for the other one", err)
	}
	_ = second.Close()
}

func TestWriteFileReplacesAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "identity")
	for _, text := range []string{"one", "two"} {
		if err := datadir.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("ReadFile() = %q, %v, want %q", got, err, text)
		}
	}
	if err := datadir.WriteFile(filepath.Join(dir, "none", "file"), nil); err == nil {
		t.Error("WriteFile() in a missing directory succeeds")
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("files %v, %v, want one", files, err)
	}
}
