package deploy

import (
	"os"
	"os/exec"
	"testing"
)

// TestARM64 runs the binary of the other architecture in an emulator: some of what it computes with is written in assembly.
func TestARM64(t *testing.T) {
	const emulator = "qemu-aarch64"
	for _, name := range []string{"make", emulator} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("left out: there is no %s on this machine", name)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
		return mustPass(t, cmd)
	}
	run("make", "rootfs", "ARCH=arm64")
	run("make", "build")
	for _, job := range []string{"wordcount", "sort", "distinct"} {
		args := []string{"run", job, "--quiet", "--input", "testdata/book/opticks.txt", "--split", "64KiB", "--partitions", "3"}
		if got, want := run(emulator, append([]string{"bin/bridgefour-arm64"}, args...)...), run("bin/bridgefour", args...); got == "" || got != want {
			t.Errorf("%s on arm64 differs: %d bytes, want %d", job, len(got), len(want))
		}
	}
}
