package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// command runs a system command as root, also after the end of the test.
func command(t *testing.T, name string, args ...string) ([]byte, error) {
	t.Helper()
	return exec.CommandContext(context.Background(), name, args...).CombinedOutput()
}

// mustRun runs a command that must succeed.
func mustRun(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := command(t, words[0], words[1:]...); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// subnets counts those of newSpaces.
var subnets atomic.Uint32

// newSpaces makes network namespaces, connected by one switch, as is this machine. Their addresses are those of subnet, from 1 on.
func newSpaces(t *testing.T, n int) (hub, subnet string) {
	t.Helper()
	needRoot(t, "make network namespaces")
	var tag [3]byte
	_, _ = rand.Read(tag[:]) // never fails
	hub = "b4" + hex.EncodeToString(tag[:])
	if out, err := command(t, "ip", "link", "add", hub, "type", "bridge"); err != nil {
		t.Skipf("left out: a switch for network namespaces cannot be made here: %v: %s", err, out)
	}
	t.Cleanup(func() { mustRun(t, "ip link del "+hub) })
	number := 16*os.Getpid() + int(subnets.Add(1))                 // no other of this process has it, and of another process probably none
	subnet = fmt.Sprintf("198.%d.%d.", 18+number>>8%2, number%256) // for tests of networks: RFC 2544
	mustRun(t, "ip addr add "+subnet+"254/24 dev "+hub)
	mustRun(t, "ip link set "+hub+" up")
	for i := range n {
		space, plug := spaceOf(hub, i), plugOf(hub, i)
		mustRun(t, "ip netns add "+space)
		t.Cleanup(func() { mustRun(t, "ip netns del "+space) })
		mustRun(t, "ip link add "+plug+" type veth peer name eth0 netns "+space)
		mustRun(t, "ip link set "+plug+" master "+hub+" up")
		mustRun(t, "ip -n "+space+" link set lo up")
		mustRun(t, fmt.Sprintf("ip -n %s addr add %s%d/24 dev eth0", space, subnet, i+1))
		mustRun(t, "ip -n "+space+" link set eth0 up")
	}
	return hub, subnet
}

// inSpace is cmd in a network namespace.
func inSpace(space string, cmd *exec.Cmd) *exec.Cmd {
	inside := exec.CommandContext(context.Background(), "ip", append([]string{"netns", "exec", space, cmd.Path}, cmd.Args[1:]...)...)
	inside.Dir, inside.Env = cmd.Dir, cmd.Env
	return inside
}

// newSpacedGroup is a group whose leaders run in network namespaces. There is one more namespace, for a client.
func newSpacedGroup(t *testing.T, n int) *group {
	t.Helper()
	hub, subnet := newSpaces(t, n+1)
	g := emptyGroup(t)
	for i := range n {
		g.newNode(fmt.Sprintf("%s%d:6550", subnet, i+1))
	}
	g.hub = hub
	g.command = func(n *node, args ...string) *exec.Cmd {
		cmd := g.lab.command(context.Background(), args...)
		cmd.Env = append(cmd.Env, "BRIDGEFOUR_INSECURE=1")
		return inSpace(n.space(), cmd)
	}
	g.setPeers()
	for _, node := range g.nodes {
		node.start()
	}
	g.knowAll()
	g.leading()
	return g
}

func spaceOf(hub string, i int) string { return fmt.Sprintf("%s-%d", hub, i+1) }
func plugOf(hub string, i int) string  { return fmt.Sprintf("%sp%d", hub, i+1) }

// space is the network namespace of a node.
func (n *node) space() string { return spaceOf(n.g.hub, slices.Index(n.g.nodes, n)) }

// unplug disconnects a leader from the switch: everything from and to it is lost silently.
func unplug(n *node) {
	mustRun(n.g.t, "ip link set "+plugOf(n.g.hub, slices.Index(n.g.nodes, n))+" nomaster")
}

func plugIn(n *node) {
	mustRun(n.g.t, "ip link set "+plugOf(n.g.hub, slices.Index(n.g.nodes, n))+" master "+n.g.hub)
}

// noLiesInside sends requests to an unplugged leader from inside its namespace.
func noLiesInside(n *node, job uint64) {
	t := n.g.t
	curl := func(args ...string) string {
		out, err := command(t, "ip", append([]string{"netns", "exec", n.space(), "curl", "-s", "-m", "60", "-w", "%{http_code}"}, args...)...)
		if err != nil && !strings.Contains(err.Error(), "exit status 28") { // no answer within a minute
			t.Errorf("curl %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Logf("left out: there is no curl here, with which the leader in its namespace would be asked")
		return
	}
	url := "http://" + n.address + "/v1/jobs"
	if got := curl("--json", tiny("lost", "true"), url); strings.HasSuffix(got, "201") {
		t.Errorf("%v is unplugged, and acknowledges a submit: %s", n, got)
	}
	if got := curl(fmt.Sprintf("%s/%d?consistency=strong", url, job)); strings.HasSuffix(got, "200") {
		t.Errorf("%v is unplugged, and answers a strong read: %s", n, got)
	}
	if got := curl(fmt.Sprintf("%s/%d", url, job)); !strings.HasSuffix(got, "200") || !strings.Contains(got, api.JobRunning) {
		t.Errorf("%v is unplugged, and answers a stale read: %s", n, got)
	}
}
