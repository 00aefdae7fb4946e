package discover

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The tests below run this program again in network namespaces of their own, which a bridge connects: machines on one network.

// Of the helper processes.
const (
	helperEnv   = "DISCOVER_TEST_HELPER" // the mode
	announceArg = "announce"             // of DISCOVER_TEST_ARG, until stdin ends
	findArg     = "find"                 // leaders, of the cluster in DISCOVER_TEST_ARG
	workersArg  = "workers"
)

// found is the output of a helper.
type found struct {
	Addresses []string
	Err       string
	Log       string
}

// runAsHelper runs the mode that the environment names. False: none.
func runAsHelper() bool {
	what := os.Getenv(helperEnv)
	if what == "" {
		return false
	}
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out found
	switch what {
	case announceArg:
		var a Announcement
		if err := json.Unmarshal([]byte(os.Getenv("DISCOVER_TEST_ARG")), &a); err != nil {
			panic(err)
		}
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
		Announce(ctx, a, logger)
		out.Log = log.String()
	case findArg:
		name, id, _ := strings.Cut(os.Getenv("DISCOVER_TEST_ARG"), "/")
		addresses, err := Multicast(name, logger)(ctx, id)
		out.Addresses = addresses
		if err != nil {
			out.Err = err.Error()
		}
	case workersArg:
		nodes, err := Browse(ctx, Worker, logger)
		for _, n := range nodes {
			out.Addresses = append(out.Addresses, fmt.Sprintf("%s %s %d", n.ID, n.Addresses[0], n.Slots))
		}
		if err != nil {
			out.Err = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
	return true
}

// network is a bridge and the machines it connects.
type network struct {
	t      *testing.T
	prefix string
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// newNetwork creates machines m1 to mN with the addresses 10.99.0.1 to N; none has a default route.
func newNetwork(t *testing.T, name string, machines int) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("needs the command ip, to make network namespaces: %v", err)
	}
	n := &network{t, fmt.Sprintf("b4d-%d-%s", os.Getpid(), name)}
	hub := n.prefix + "-hub"
	out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", hub).CombinedOutput()
	if err != nil {
		t.Skipf("cannot make network namespaces here: %s", out)
	}
	n.removeLater(hub)
	ip(t, "-n", hub, "link", "add", "br0", "type", "bridge")
	ip(t, "-n", hub, "link", "set", "br0", "up")
	for i := 1; i <= machines; i++ {
		name, port := n.machine(i), fmt.Sprintf("p%d", i)
		ip(t, "netns", "add", name)
		n.removeLater(name)
		ip(t, "-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
		ip(t, "-n", hub, "link", "set", port, "master", "br0", "up")
		ip(t, "-n", name, "addr", "add", fmt.Sprintf("10.99.0.%d/24", i), "dev", "eth0")
		ip(t, "-n", name, "link", "set", "eth0", "up")
		ip(t, "-n", name, "link", "set", "lo", "up")
	}
	return n
}

func (n *network) machine(i int) string { return fmt.Sprintf("%s-m%d", n.prefix, i) }

func (n *network) removeLater(name string) {
	n.t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "ip", "netns", "delete", name).CombinedOutput(); err != nil {
			n.t.Errorf("ip netns delete %s: %v: %s", name, err, out)
		}
	})
}

func (n *network) command(machine int, what, arg string) *exec.Cmd {
	n.t.Helper()
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		n.t.Fatal(err)
	}
	// The cleanup of the test ends the announcers, and needs them alive.
	cmd := exec.CommandContext(context.WithoutCancel(n.t.Context()), "ip", "netns", "exec", n.machine(machine), self)
	cmd.Env = append(os.Environ(), helperEnv+"="+what, "DISCOVER_TEST_ARG="+arg)
	cmd.Stderr = os.Stderr
	return cmd
}

// announce starts an announcement on a machine. The returned function ends it.
func (n *network) announce(machine int, a Announcement) (stop func() found) {
	n.t.Helper()
	arg, err := json.Marshal(a)
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := n.command(machine, announceArg, string(arg))
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	var done *found
	stop = func() found {
		if done != nil {
			return *done
		}
		done = &found{}
		_ = in.Close()
		line, err := bufio.NewReader(out).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, done)
		}
		if err != nil {
			n.t.Errorf("the announcer of machine %d: %v", machine, err)
		}
		if err := cmd.Wait(); err != nil {
			n.t.Errorf("the announcer of machine %d: %v", machine, err)
		}
		return *done
	}
	n.t.Cleanup(func() { stop() })
	return stop
}

// query runs one helper.
func (n *network) query(machine int, what, arg string) found {
	n.t.Helper()
	raw, err := n.command(machine, what, arg).Output()
	if err != nil {
		n.t.Fatalf("%s on machine %d: %v", what, machine, err)
	}
	var f found
	if err := json.Unmarshal(raw, &f); err != nil {
		n.t.Fatalf("%s on machine %d: %v in %q", what, machine, err, raw)
	}
	return f
}

// until repeats a query until its result is good: announcers need a moment to start and to end.
func (n *network) until(machine int, what, arg string, good func(found) bool) found {
	n.t.Helper()
	var f found
	for range 20 {
		if f = n.query(machine, what, arg); good(f) {
			return f
		}
	}
	n.t.Errorf("%s %q on machine %d = %+v at last", what, arg, machine, f)
	return f
}

func gives(addresses ...string) func(found) bool {
	return func(f found) bool { return f.Err == "" && slices.Equal(f.Addresses, addresses) }
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "four", 4)
	const client = 4
	if f := n.query(client, findArg, ""); f.Err != "" || len(f.Addresses) > 0 {
		t.Errorf("found %+v on an empty network", f)
	}

	// Leaders of one cluster; one has an unknown host name; one has a loopback address.
	stopFirst := n.announce(1, Announcement{Role: Leader, ID: "1", Address: "10.99.0.1:6550", ClusterID: "a", ClusterName: "alpha"})
	n.announce(2, Announcement{Role: Leader, ID: "2", Address: "some-host:7000", ClusterID: "a", ClusterName: "alpha"})
	n.announce(3, Announcement{Role: Leader, ID: "3", Address: "127.0.0.1:6550", ClusterID: "z", ClusterName: "zeta"})
	byName := func(f found) bool {
		return f.Err == "" && len(f.Addresses) == 4 && f.Addresses[0] == "10.99.0.1:6550" && f.Addresses[1] == "10.99.0.2:7000" &&
			strings.HasPrefix(f.Addresses[2], "[fe80::") && f.Addresses[3] == "some-host:7000"
	}
	n.until(client, findArg, "", byName)
	n.until(2, findArg, "alpha", byName) // on which a leader runs
	if f := n.query(client, findArg, "beta"); f.Err != "" || len(f.Addresses) > 0 {
		t.Errorf("found %+v of another name", f)
	}

	// A second cluster of that name: only the id selects one.
	n.announce(3, Announcement{Role: Leader, ID: "1", Address: "10.99.0.3:6550", ClusterID: "b", ClusterName: "alpha", Former: []string{"old"}})
	f := n.until(client, findArg, "alpha", func(f found) bool { return f.Err != "" })
	for _, want := range []string{"id a, at 10.99.0.1:6550", "id b, at 10.99.0.3:6550", "--cluster-id", "--leader"} {
		if len(f.Addresses) > 0 || !strings.Contains(f.Err, want) {
			t.Errorf("found %+v among two clusters of one name, want an error with %q", f, want)
		}
	}
	n.until(client, findArg, "alpha/b", gives("10.99.0.3:6550"))
	n.until(client, findArg, "alpha/old", gives("10.99.0.3:6550"))

	// A leader moves.
	if f := stopFirst(); f.Log != "" {
		t.Errorf("the announcer logged %q", f.Log)
	}
	n.announce(1, Announcement{Role: Leader, ID: "1", Address: "10.99.0.1:6666", ClusterID: "a", ClusterName: "alpha"})
	n.until(client, findArg, "/a", func(f found) bool {
		return slices.Contains(f.Addresses, "10.99.0.1:6666") && !slices.Contains(f.Addresses, "10.99.0.1:6550")
	})

	// Workers that wait for an invitation.
	n.announce(1, Announcement{Role: Worker, ID: "w1", Address: "10.99.0.1:4000", Slots: 4})
	n.announce(client, Announcement{Role: Worker, ID: "w2", Address: "10.99.0.4:4000", Slots: 1})
	n.until(2, workersArg, "", gives("w1 10.99.0.1:4000 4", "w2 10.99.0.4:4000 1"))
}

// TestNetworkStartsLater starts the network of a machine after its leader.
func TestNetworkStartsLater(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "late", 2)
	ip(t, "-n", n.machine(1), "link", "set", "eth0", "down")
	stop := n.announce(1, Announcement{Role: Leader, ID: "1", Address: "10.99.0.1:6550", ClusterID: "a"})
	if f := n.query(1, findArg, ""); !strings.Contains(f.Err, "no multicast interface is up") {
		t.Errorf("found %+v without a network, want an error", f)
	}
	ip(t, "-n", n.machine(1), "link", "set", "eth0", "up")
	n.until(2, findArg, "", gives("10.99.0.1:6550"))
	// None if its first check came after the network was up.
	if f := stop(); strings.Count(f.Log, "unavailable") > 1 {
		t.Errorf("the announcer logged %q, want one message", f.Log)
	}
}
