package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackages installs the deb in a folder, and compares the tarball with it.
func TestPackages(t *testing.T) {
	for _, name := range []string{"make", "dpkg", "rpm", "sha256sum"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("left out: there is no %s on this machine", name)
		}
	}
	needRoot(t, "install packages")
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = "../.."
		return strings.TrimSpace(mustPass(t, cmd))
	}
	run("make", "packages", "VERSION=v1.2.3", "ARCHES=amd64")
	run("sh", "-c", "cd bin/dist && sha256sum --check SHA256SUMS")
	const deb, rpm, tarball = "bin/dist/bridgefour_1.2.3_amd64.deb", "bin/dist/bridgefour-1.2.3-1.x86_64.rpm", "bin/dist/bridgefour_1.2.3_linux_amd64.tar.gz"
	root := t.TempDir()
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil { //nolint:gosec // as on a system
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run("dpkg", "--root="+root, "--force-script-chrootless", "--install", deb)
	if got, want := run(filepath.Join(root, "usr/bin/bridgefour"), "version"), "bridgefour v1.2.3 "; !strings.HasPrefix(got, want) {
		t.Errorf("version = %q, want %q", got, want)
	}
	installed := []string{"usr/lib/systemd/system/bridgefour-leader.service", "usr/lib/systemd/system/bridgefour-worker.service", "usr/share/man/man1/bridgefour.1", "etc/bridgefour"}
	for _, file := range installed {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			if _, err := os.Stat(filepath.Join(root, file+".gz")); err != nil {
				t.Error(err)
			}
		}
	}
	other := t.TempDir()
	run("rpm", "--root", other, "--initdb")
	run("rpm", "--root", other, "--install", "--noscripts", rpm) // there is no shell in it
	run("rpm", "--root", other, "--verify", "bridgefour")
	for _, file := range append(installed, "usr/bin/bridgefour") {
		if _, err := os.Stat(filepath.Join(other, file)); err != nil {
			t.Error(err)
		}
	}
	run("rpm", "--root", other, "--erase", "--noscripts", "bridgefour")
	if _, err := os.Stat(filepath.Join(other, "usr/bin/bridgefour")); err == nil {
		t.Error("the binary is left after the rpm was removed")
	}
	if list := run("tar", "-tzf", tarball); !strings.Contains(list, "bridgefour_1.2.3_linux_amd64/bridgefour\n") {
		t.Error("the tarball does not have the binary")
	}
	run("dpkg", "--root="+root, "--force-script-chrootless", "--remove", "bridgefour")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/bridgefour")); err == nil {
		t.Error("the binary is left after the package was removed")
	}
	sums := func() string { return run("cat", "bin/dist/SHA256SUMS") }
	before := sums()
	run("make", "packages", "VERSION=v1.2.3", "ARCHES=amd64")
	if after := sums(); after != before {
		t.Errorf("two builds of one source differ: %s and %s", before, after)
	}
}
