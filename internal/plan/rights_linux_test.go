package plan_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/internal/plan"
)

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "in/a", "in/closed", "in/sub/x", "out/")
	for name, mode := range map[string]os.FileMode{"in/closed": 0, "in/sub": 0, "out": 0o555, "": 0o755} {
		if err := os.Chmod(dir+"/"+name, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(dir+"/in/sub", 0o700) })
	req := wordcount(dir, "in")
	req.Output = dir + "/out/new"
	var err error
	asNobody(t, dir, func(ctx context.Context) { _, err = plan.Plan(ctx, req, options()) })
	text := fmt.Sprint(err)
	for _, want := range []string{
		`output "` + dir + `/out/new" cannot be written: write in "` + dir + `/out": permission denied for user`,
		`folder "` + dir + `/in/sub" of input "` + dir + `/in" cannot be read`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("Plan = %v, want %q", err, want)
		}
	}
	if list, ok := errors.AsType[plan.Errors](err); !ok || len(list) != 2 {
		t.Errorf("Plan = %v, want two errors: the closed file is its task's matter", err)
	}
}

// asNobody calls do without root's privileges.
func asNobody(t *testing.T, dir string, do func(ctx context.Context)) {
	t.Helper()
	if os.Geteuid() != 0 {
		do(t.Context())
		return
	}
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan syscall.Errno)
	go func() {
		// Only this thread changes its user, and it ends with the goroutine.
		runtime.LockOSThread()
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534)
		if errno == 0 {
			do(t.Context())
		}
		done <- errno
	}()
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
}
