package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNotifiesSystemd starts a leader and a worker as services of systemd are: they say that they are ready, live and stop.
func TestNotifiesSystemd(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"leader", "--listen", "127.0.0.1:0"}, {"worker", "--leader", "127.0.0.1:1"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close() //nolint:errcheck // of a test
			cmd := exec.CommandContext(context.Background(), binary, append(args, "--data-dir", filepath.Join(dir, "data"))...)
			cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=300000")
			cmd.Stderr = t.Output()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill() //nolint:errcheck // it has ended
			next := func() string {
				buffer := make([]byte, 1<<10)
				n, err := socket.Read(buffer)
				if err != nil {
					t.Fatal(err)
				}
				return string(buffer[:n])
			}
			for i, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
				if got := next(); got != want {
					t.Fatalf("notification %d = %q, want %q", i+1, got, want)
				}
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			for got := ""; got != "STOPPING=1"; {
				if got = next(); got != "STOPPING=1" && got != "WATCHDOG=1" {
					t.Fatalf("notification = %q, want STOPPING=1", got)
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnits lets systemd verify the units.
func TestUnits(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("left out: there is no systemd-analyze on this machine")
	}
	units, err := filepath.Glob("../../deploy/systemd/*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("units = %v, %v, want two", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		const installed = "/usr/bin/bridgefour "
		if !strings.Contains(string(text), "\nExecStart="+installed) {
			t.Errorf("%s does not start %s", unit, installed)
		}
		here := filepath.Join(t.TempDir(), filepath.Base(unit))
		if err := os.WriteFile(here, []byte(strings.ReplaceAll(string(text), installed, binary+" ")), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", here).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify %s: %v: %s", filepath.Base(unit), err, out)
		}
	}
}
