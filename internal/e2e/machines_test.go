package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// machines are those of a cluster whose connections are encrypted: each has a network namespace, and a folder of its own.
type machines struct {
	*lab
	hub, subnet string
}

// start starts a server on a machine.
func (m machines) start(i int, args ...string) *process {
	m.t.Helper()
	return m.launch(args[0], inSpace(spaceOf(m.hub, i), m.command(context.Background(), args...)))
}

// on runs a program on a machine, with the access that a string gives, and returns its exit code and its output.
func (m machines) on(i int, access string, cmd *exec.Cmd) (code int, out string) {
	m.t.Helper()
	cmd = inSpace(spaceOf(m.hub, i), cmd)
	if access != "" {
		cmd.Env = append(cmd.Env, "BRIDGEFOUR_ACCESS="+access)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String() + stderr.String()
}

// must runs bridgefour, which must succeed, and returns its standard output.
func (m machines) must(i int, access string, args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	code, out := m.on(i, access, m.command(ctx, args...))
	if code != 0 {
		m.t.Fatalf("%q on machine %d: exit code %d: %s", args, i, code, out)
	}
	return out
}

// token returns the string for a role.
func (m machines) token(i int, access, role string) string {
	m.t.Helper()
	out := m.must(i, access, "token", "create", "--role", role)
	return strings.TrimSpace(out[:strings.IndexByte(out, '\n')])
}

// TestMachines: leaders, a worker and a user on machines of their own, each of which types one string.
func TestMachines(t *testing.T) {
	t.Parallel()
	hub, subnet := newSpaces(t, 4)
	m := machines{newLab(t), hub, subnet}
	first := func() *process {
		return m.start(0, "leader", "--listen", subnet+"1:6550", "--data-dir", m.path("l1"), "--spool", m.path("spool"))
	}
	leading := first()
	until(t, "the access of an admin is written", func() bool { return exists(m.path("l1", "admin.access")) })
	admin := readFile(t, m.path("l1", "admin.access"))

	m.start(1, "leader", "--listen", subnet+"2:6550", "--data-dir", m.path("l2"), "--spool", m.path("spool"), "--join", m.token(3, admin, "leader"))
	m.start(2, "worker", "--data-dir", m.path("w1"), "--listen", subnet+"3:6560", "--join", m.token(3, admin, "worker"))
	until(t, "there are two leaders and a worker", func() bool {
		return strings.Contains(m.must(3, admin, "leaders"), "follower") && strings.Contains(m.must(3, admin, "workers"), "alive")
	})
	user := m.token(3, admin, "submit")
	m.must(3, user, "submit", "--range", "1-5", "--wait", "--", "echo", "hello")

	// Prometheus, on a machine of its own, reads the metrics of the worker with a token and the certificate of the cluster's authority.
	read := m.token(3, admin, "read")
	bearer := "Authorization: Bearer " + read[strings.LastIndexByte(read, '/')+1:]
	scrape := func(args ...string) string {
		_, out := m.on(3, "", exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--cacert", m.path("w1", "authority.pem"), "--resolve", "worker.bridgefour:6560:" + subnet + "3"}, args...)...))
		return out
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-H", bearer, "https://worker.bridgefour:6560/metrics"}, "bridgefour_command_cpu_seconds_total"},
		{[]string{"https://worker.bridgefour:6560/metrics"}, "without a token"},
		{[]string{"-H", bearer[:len(bearer)-1] + "_", "https://worker.bridgefour:6560/metrics"}, "the token is not valid"},
		{[]string{"-H", bearer, "http://" + subnet + "3:6560/metrics"}, "only encrypted connections"},
		{[]string{"-H", bearer, "-d", "{}", "https://worker.bridgefour:6560/worker/invite"}, "needs the role admin"},
	} {
		if out := scrape(c.args...); !strings.Contains(out, c.want) {
			t.Errorf("curl %q of the worker: %s, want %q in it", c.args, out, c.want)
		}
	}

	// The user of a leader's machine needs no access there, also if another one leads.
	m.must(1, "", "submit", "--cluster", "unix:"+m.path("l2", "leader.sock"), "--range", "1-5", "--wait", "--", "echo", "hello")

	// Nobody else enters, from any machine.
	for _, i := range []int{1, 3} {
		for _, args := range [][]string{{"submit", "--cluster", "http://" + subnet + "1:6550", "--", "true"}, {"submit", "--cluster", "https://" + subnet + "1:6550", "--", "true"}} {
			if code, out := m.on(i, "", m.command(context.Background(), args...)); code == 0 {
				t.Errorf("%q on machine %d without access: %s", args, i, out)
			}
		}
	}
	stranger := m.start(3, "worker", "--data-dir", m.path("w2"), "--leader", subnet+"1:6550")
	until(t, "a worker without a string is told how to join", func() bool { return strings.Contains(stranger.readStderr(), "'bridgefour token create'") })

	// All processes of a machine die at once, and the cluster goes on when it is back; a local user of it needs no access.
	leading.kill()
	first()
	until(t, "the leader is back", func() bool {
		code, out := m.on(0, "", m.command(context.Background(), "leaders", "--cluster", "unix:"+m.path("l1", "leader.sock")))
		return code == 0 && strings.Contains(out, "follower")
	})
	m.must(3, admin, "ca", "rotate")
	m.must(3, user, "submit", "--range", "1-5", "--wait", "--", "echo", "hello")
	m.must(3, admin, "workers", "remove", "1")
	if out := m.must(3, admin, "workers"); strings.Contains(out, "alive") {
		t.Errorf("the worker that was removed is there: %s", out)
	}
}

// TestFounders: three leaders on machines of their own start a cluster by one key, without --insecure; it survives the loss of each.
func TestFounders(t *testing.T) {
	t.Parallel()
	hub, subnet := newSpaces(t, 4)
	m := machines{newLab(t), hub, subnet}
	if err := os.WriteFile(m.path("cluster.key"), []byte(m.must(0, "", "ca", "key")), 0o600); err != nil {
		t.Fatal(err)
	}
	peers := fmt.Sprintf("1=%[1]s1:6550,2=%[1]s2:6550,3=%[1]s3:6550", subnet)
	dir := func(i int) string { return m.path(fmt.Sprintf("l%d", i+1)) }
	start := func(i int) *process {
		return m.start(i, "leader", "--peers", peers, "--id", strconv.Itoa(i+1), "--data-dir", dir(i), "--spool", m.path("spool"), "--cluster-key", m.path("cluster.key"))
	}
	leaders := []*process{start(0), start(1), start(2)}
	first := -1
	until(t, "the access of an admin is written by one", func() bool {
		first = slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return exists(filepath.Join(dir(i), "admin.access")) })
		return first >= 0
	})
	admin := readFile(t, filepath.Join(dir(first), "admin.access"))
	m.start(3, "worker", "--data-dir", m.path("w1"), "--join", m.token(3, admin, "worker"))
	user := m.token(3, admin, "submit")
	m.must(3, user, "submit", "--range", "1-5", "--wait", "--secret", "PASSWORD=@"+m.path("cluster.key"), "--", "sh", "-c", `test -n "$PASSWORD"`)

	together := func() bool {
		code, out := m.on(3, admin, m.command(context.Background(), "leaders"))
		return code == 0 && strings.Count(out, "follower") == 2
	}

	// A job goes on while each of them dies in turn.
	m.must(3, user, "submit", "--range", "1-100", "--", "sh", "-c", "sleep 0.1")
	for i := range leaders {
		leaders[i].kill()
		until(t, "the others go on", func() bool {
			code, out := m.on(3, admin, m.command(context.Background(), "leaders"))
			return code == 0 && strings.Contains(out, "silent")
		})
		leaders[i] = start(i)
		until(t, "it is back", together)
	}
	m.must(3, user, "wait", "2")

	// So does one with a secret while the cluster key is replaced, and all machines lose power.
	before := readFile(t, m.path("cluster.key"))
	m.must(3, user, "submit", "--range", "1-100", "--secret", "PASSWORD=@"+m.path("cluster.key"), "--", "sh", "-c", `sleep 0.1; test -n "$PASSWORD"`)
	m.must(3, admin, "ca", "rotate", "--key")
	for _, p := range leaders {
		p.kill()
	}
	for i := range leaders {
		start(i)
	}
	until(t, "they are back", together)
	m.must(3, user, "wait", "3")
	for i := range leaders {
		if key := readFile(t, filepath.Join(dir(i), "cluster.key")); strings.HasPrefix(key, before) {
			t.Errorf("leader %d has the cluster key of before", i+1)
		}
	}
	m.must(3, user, "submit", "--range", "1-5", "--wait", "--", "echo", "hello")
}
