package worker

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// A worker without files returns the attempt, says so and pauses; other failures are the task's, also those of a command that had no files.
func TestNoFilesLeft(t *testing.T) {
	for _, test := range []struct {
		kind     wire.FailureKind
		message  string
		returned bool
	}{
		{wire.FailureKind_OUTPUT_ERROR, `output: open "/out/x": too many open files in this process; raise its limit (ulimit -n)`, true},
		{wire.FailureKind_OUTPUT_ERROR, `output: open "/out/x": no space left on device`, false},
		{wire.FailureKind_PROGRAM_ERROR, "exit status 1\ncat: x: too many open files", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			closed := 0
			s := &slot{logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})), runner: closing{n: &closed}, fresh: func() attemptRunner { return nil }}
			begun := time.Now()
			res := s.returnForFiles(t.Context(), core.Result{Failure: &wire.Failure{Kind: test.kind, Message: test.message}})
			if res.Canceled != test.returned || (res.Failure == nil) != test.returned {
				t.Errorf("%q: result %+v, want returned %v", test.message, res, test.returned)
			}
			if (closed == 1) != test.returned {
				t.Errorf("%q: the runner was closed %d times", test.message, closed)
			}
			if paused := time.Since(begun) == filesPause; paused != test.returned || strings.Contains(log.String(), "ulimit -n") != test.returned {
				t.Errorf("%q: paused %v, logged %q", test.message, paused, log.String())
			}
			said := log.Len()
			s.runner = closing{n: &closed}
			s.returnForFiles(t.Context(), core.Result{Failure: &wire.Failure{Kind: test.kind, Message: test.message}})
			if log.Len() != said {
				t.Errorf("%q: a slot repeats its error: %q", test.message, log.String())
			}
		})
	}
}

// TestNoFilesLeftToSync: what an attempt has written is synced when there are files again.
func TestNoFilesLeftToSync(t *testing.T) {
	var limit, none syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none.Max = limit.Max
	restored := make(chan error, 100)
	restore := writer(func() { restored <- syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) })
	d := newDisk(runner.Users{}, slog.New(slog.NewTextHandler(restore, nil)))
	job := &wire.Job{Id: 1, Uid: "u", Output: t.TempDir(), Stages: []string{"map"}}
	file := core.AttemptRef{Job: job, Index: 3, Lease: 7}
	if err := os.MkdirAll(filepath.Dir(string(attemptPath(file))), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(string(attemptPath(file)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	errs := d.syncAll(t.Context(), []core.ToSync{{AttemptRef: file}})
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(errs...); err != nil || len(restored) != 1 {
		t.Errorf("syncAll() = %v, and the lack was logged %d times, want success and once", err, len(restored))
	}
}

// writer is called for each line of a log.
type writer func()

func (w writer) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

// closing counts its ends.
type closing struct {
	attemptRunner

	n *int
}

func (c closing) Close() error {
	*c.n++
	return nil
}
