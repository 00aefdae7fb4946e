package deploy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// needRoot skips a test that only root can run.
func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("left out: only root can %s", what)
	}
}

// mustPass runs a script, which ends by itself.
func mustPass(t *testing.T, cmd *exec.Cmd) (stdout string) {
	t.Helper()
	var out, all strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &all
	err := cmd.Run()
	t.Logf("%s: %s%s", strings.Join(cmd.Args, " "), out.String(), all.String())
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// binary is what make image builds, from the root of the repository.
const binary = "bin/bridgefour-" + runtime.GOARCH

// engine is a dockerd in network and mount namespaces of its own, which knows no image.
type engine struct {
	t   *testing.T
	pid int
	env []string
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	needRoot(t, "run dockerd")
	for _, name := range []string{"dockerd", "docker-compose", "unshare", "nsenter", "make"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("left out: there is no %s on this machine", name)
		}
	}
	dir := t.TempDir()
	socket := "unix://" + dir + "/socket"
	server := exec.CommandContext(context.Background(), "unshare", "--net", "--mount", "sh", "-c",
		`ip link set lo up && exec dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" --host "$1" --bip 198.18.200.1/24`, dir, socket)
	var log strings.Builder
	server.Stdout, server.Stderr = &log, &log
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = server.Wait(); close(ended) }() // it is stopped, below
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM) // it may have ended
		<-ended
	})
	// The docker of dockerd's package has its builder in dockerd; others need a plugin.
	e := &engine{t: t, pid: server.Process.Pid, env: append(os.Environ(), "DOCKER_HOST="+socket, "DOCKER_BUILDKIT=1", "PATH=/usr/bin:"+os.Getenv("PATH"),
		"XDG_STATE_HOME="+dir+"/state", "XDG_CONFIG_HOME="+dir+"/config")}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		if err := e.command("docker", "version").Run(); err == nil {
			return e
		}
		select {
		case <-ended:
			t.Skipf("left out: dockerd does not start here: %s", lastLine(log.String()))
		case <-again.C:
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// command is a command of a user of the engine, from the root of the repository, where published ports are.
func (e *engine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(e.t.Context(), "nsenter", append([]string{"--net=" + fmt.Sprintf("/proc/%d/ns/net", e.pid), name}, args...)...)
	cmd.Dir, cmd.Env = "../..", e.env
	return cmd
}

func (e *engine) run(name string, args ...string) string {
	e.t.Helper()
	return strings.TrimSpace(mustPass(e.t, e.command(name, args...)))
}

// TestContainers builds the image, and starts clusters of it as the compose files say.
func TestContainers(t *testing.T) {
	e := startEngine(t)
	e.image()
	e.cluster()
	chaos := e.command("deploy/chaos/chaos.sh", "--compose")
	chaos.Env = append(chaos.Env, "SEED=3", "TASKS=6", "SLEEP=2")
	mustPass(t, chaos)
	if left := e.run("docker", "ps", "-aq") + e.run("docker", "volume", "ls", "-q"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// image builds the image twice.
func (e *engine) image() {
	e.t.Helper()
	var layers [2]string
	for i := range layers {
		e.run("make", "image", "VERSION=test")
		layers[i] = e.run("docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", "bridgefour")
		e.run("docker", "builder", "prune", "-af")
	}
	if layers[0] != layers[1] {
		e.t.Errorf("two builds of one source have the layers %s and %s", layers[0], layers[1])
	}
	var size, sizeMax int
	sizeMax = 25e6
	if _, err := fmt.Sscan(e.run("docker", "image", "inspect", "--format", "{{.Size}}", "bridgefour"), &size); err != nil || size >= sizeMax {
		e.t.Errorf("the image has %d bytes (%v), want less than %d", size, err, sizeMax)
	}
	if got, want := e.run("docker", "run", "--rm", "bridgefour", "version"), "bridgefour test "; !strings.HasPrefix(got, want) {
		e.t.Errorf("version = %q, want %q", got, want)
	}
	if user := e.run("docker", "image", "inspect", "--format", "{{.Config.User}}", "bridgefour"); user != "65532:65532" {
		e.t.Errorf("the image runs as user %s", user)
	}
	e.run("docker", "build", "-f", "deploy/docker/Dockerfile", "--target", "tools", "--build-arg", "TOOLS=bridgefour", "--build-arg", "ROOTFS=prebuilt",
		"--build-arg", "TARGETARCH="+runtime.GOARCH, "-t", "bridgefour:tools", ".") // no other base can be pulled
	e.run("docker", "run", "--rm", "bridgefour:tools", "version")
}

// cluster starts three leaders and three workers, and submits jobs from the host, at first to a follower.
func (e *engine) cluster() {
	e.t.Helper()
	shared, secrets := filepath.Join(e.t.TempDir(), "shared"), filepath.Join(e.t.TempDir(), "secrets")
	if err := os.Mkdir(shared, 0o777); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777); err != nil { //nolint:gosec // another user writes there
		e.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shared, "book.txt"), []byte("life before death\nstrength before weakness\n"), 0o644); err != nil { //nolint:gosec // the same
		e.t.Fatal(err)
	}
	e.run("docker-compose", "-f", "deploy/compose/compose.yml", "config", "--quiet")
	e.env = append(e.env, "BRIDGEFOUR_SHARED="+shared, "BRIDGEFOUR_SECRETS="+secrets)
	e.run("deploy/compose/secrets.sh", "compose.ha.yml")
	compose := []string{"-p", "ha", "-f", "deploy/compose/compose.ha.yml"}
	began := time.Now()
	e.run("docker-compose", append(compose, "up", "-d", "--no-build")...)
	defer e.run("docker-compose", append(compose, "down", "--volumes")...)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	healthy := []string{"ps", "-q", "--filter", "health=healthy"}
	for len(strings.Fields(e.output("docker", healthy...))) < 6 {
		<-again.C
	}
	e.t.Logf("six services were healthy after %v", time.Since(began).Round(10*time.Millisecond))
	exec := append(compose, "exec", "-T", "kaladin-01", "bridgefour")
	leader := 0
	for leader == 0 { // a slow machine may elect one at any time
		leader = leaderOf(e.run("docker-compose", append(exec, "leaders")...))
	}
	follower := fmt.Sprintf("localhost:655%d", leader%3) // of number leader%3+1
	for i, addresses := range []string{follower + ",localhost:6550,localhost:6551,localhost:6552", fmt.Sprintf("localhost:655%d", leader-1)} {
		join := e.run("docker-compose", append(exec, "token", "create", "--role", "submit", "--user", "ann", "--address", addresses)...)
		client := e.command(binary, "login", "-")
		client.Stdin = strings.NewReader(join)
		mustPass(e.t, client)
		e.run(binary, "submit", "wordcount", "--input", "/srv/shared/book.txt", "--output", fmt.Sprintf("/srv/shared/out%d", i), "--wait")
		if got, want := e.run(binary, "result", fmt.Sprint(i+1)), "before\t2"; !strings.HasPrefix(got, want) {
			e.t.Errorf("result = %q, want %q first", got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(shared, "out0", "_SUCCESS")); err != nil {
		e.t.Error(err)
	}
}

// output is run without a log.
func (e *engine) output(name string, args ...string) string {
	out, err := e.command(name, args...).Output()
	if err != nil {
		e.t.Fatal(err)
	}
	return string(out)
}

// leaderOf finds the number of the one that leads in the table of the command leaders.
func leaderOf(table string) (id int) {
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == "leader" {
			_, _ = fmt.Sscan(fields[0], &id)
		}
	}
	return id
}
