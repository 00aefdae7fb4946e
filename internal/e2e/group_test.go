package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

// group is a cluster of several leaders, each a process.
type group struct {
	*cluster

	nodes []*node // all that were ever created
	net   *network
	// command returns the command of a leader; it is replaced if leaders run in network namespaces.
	command func(n *node, args ...string) *exec.Cmd
	hub     string // switch of the network namespaces, if there are any
	// data is the folder of the data directories, and of the spool.
	data string
}

// node is one leader of a group. It keeps its data directory and its address across restarts.
type node struct {
	g       *group
	id      uint64 // 0: not known yet
	dir     string
	listen  string
	address string   // advertised: that of its link, if it has one
	flags   []string // of every start, as with a service manager
	program string   // the binary of the next start
	*process
}

// newGroup starts a cluster of n leaders, and waits until one leads.
func newGroup(t *testing.T, n int) *group {
	t.Helper()
	g := emptyGroup(t)
	g.found(n)
	return g
}

// newLinkedGroup is a group whose leaders are reached through a network that can be cut.
func newLinkedGroup(t *testing.T, n int) *group {
	t.Helper()
	g := emptyGroup(t)
	g.net = newNetwork(t)
	g.found(n)
	return g
}

func emptyGroup(t *testing.T) *group {
	t.Helper()
	g := &group{cluster: &cluster{lab: newLab(t)}}
	g.data = g.dir
	g.command = func(n *node, args ...string) *exec.Cmd {
		return g.commandOf(context.Background(), n.program, args...)
	}
	return g
}

// found starts a new cluster of n leaders.
func (g *group) found(n int) {
	g.t.Helper()
	for range n {
		g.newNode("")
	}
	if n > 1 {
		g.setPeers()
	}
	for _, node := range g.nodes {
		node.start()
	}
	g.knowAll()
	g.leading()
}

// setPeers gives the nodes the flags of the first members of a cluster.
func (g *group) setPeers() {
	var peers []string
	for i, node := range g.nodes {
		node.id = uint64(i + 1)
		peers = append(peers, fmt.Sprintf("%d=%s", node.id, node.address))
	}
	for _, node := range g.nodes {
		node.flags = []string{"--id", strconv.FormatUint(node.id, 10), "--peers", strings.Join(peers, ",")}
	}
}

// newNode creates a node that is not started yet. An empty address stands for a new one.
func (g *group) newNode(address string, flags ...string) *node {
	g.t.Helper()
	if address == "" {
		address = ownAddress(g.t)
	}
	n := &node{g: g, listen: address, address: address, flags: flags, program: binary, dir: fmt.Sprintf("%s/leader-%d", g.data, len(g.nodes)+1)}
	if g.net != nil {
		n.id = uint64(len(g.nodes) + 1)
		front := ownAddress(g.t)
		l, err := net.Listen("tcp", front) //nolint:noctx // opens at once
		if err != nil {
			g.t.Fatal(err)
		}
		n.address = front
		g.net.link(n.id, l, n.listen)
	}
	g.nodes = append(g.nodes, n)
	return n
}

var addresses atomic.Uint32

// ownAddress returns an address for one process alone: while a leader is down, no outgoing connection may take its port.
func ownAddress(t *testing.T) string {
	t.Helper()
	var some [2]byte
	_, _ = rand.Read(some[:]) // never fails; another run of these tests has others
	host := fmt.Sprintf("127.%d.%d.%d", 1+some[0]%254, some[1], 1+addresses.Add(1)%254)
	for _, address := range []string{host + ":6550", "127.0.0.1:0"} { // not every system has so many loopback addresses
		l, err := net.Listen("tcp", address) //nolint:noctx // opens at once
		if err != nil {
			continue
		}
		defer l.Close() //nolint:errcheck // it was only tried
		return l.Addr().String()
	}
	t.Fatal("this machine has no free port")
	return ""
}

// knowAll gives workers and clients that are started later the addresses of all nodes.
func (g *group) knowAll() {
	g.t.Helper()
	var list []string
	for _, n := range g.nodes {
		list = append(list, n.address)
	}
	g.know(list...)
}

func (g *group) know(list ...string) {
	g.t.Helper()
	g.address, g.known = list[0], strings.Join(list, ",")
	c, err := client.New(list, client.Options{Patience: patience})
	if err != nil {
		g.t.Fatal(err)
	}
	g.client = c
	g.t.Cleanup(c.Close)
}

// start starts the process of a node, with its data directory as it is.
func (n *node) start() {
	n.g.t.Helper()
	args := []string{
		"leader", "--data-dir", n.dir, "--listen", n.listen, "--advertise", n.address, "--spool", n.g.data + "/spool",
	}
	launch := func() int {
		n.process = n.g.launch("leader-"+n.address, n.g.command(n, append(args, n.flags...)...))
		return n.cmd.Process.Pid
	}
	if n.g.net != nil {
		n.g.net.begin(n.id, launch)
	} else {
		launch()
	}
}

func (n *node) String() string { return fmt.Sprintf("leader %d (%s)", n.id, n.address) }

// answer is the answer of a node; code 0: none, because of err.
type answer struct {
	code   int
	header http.Header
	body   string
	err    error
}

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %s (%s)", a.code, strings.TrimSpace(a.body), a.header.Get("X-Bridgefour-Index"))
}

// number returns a numeric header.
func (a answer) number(header string) uint64 {
	v, err := strconv.ParseUint(a.header.Get(header), 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// direct sends requests to one leader and follows no redirect. Connections are not kept, so each request reaches the present process.
var direct = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// asking is the timeout of requests that may not be answered. It exceeds all timeouts of a leader.
const asking = 20 * time.Second

// request sends one request to this node, bypassing its link.
func (n *node) request(method, path, body string, header ...string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), asking)
	defer cancel()
	return requestAt(ctx, direct, method, "http://"+n.listen+path, body, header...)
}

func (n *node) get(path string) answer { return n.request(http.MethodGet, path, "") }

// settled is an answer that is not 503: a node without a leader refuses, and a slow machine may elect one at any time.
func (n *node) settled(method, path, body string) (a answer) {
	n.g.t.Helper()
	until(n.g.t, fmt.Sprintf("%v answers %s %s", n, method, path), func() bool {
		a = n.request(method, path, body)
		return a.err == nil && a.code != http.StatusServiceUnavailable
	})
	return a
}

// requestAt sends one request; header has names and values in turn.
func requestAt(ctx context.Context, c *http.Client, method, url, body string, header ...string) answer {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{err: err}
	}
	return answer{code: resp.StatusCode, header: resp.Header, body: string(text)}
}

// decode decodes an answer, which must be a success.
func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	if a.code != http.StatusOK && a.code != http.StatusCreated {
		t.Fatalf("answer: %v", a)
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

// view returns the node's view of the cluster; false: it does not answer.
func (n *node) view() (api.Cluster, bool) {
	var v api.Cluster
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	a := requestAt(ctx, direct, http.MethodGet, "http://"+n.listen+"/v1/cluster", "")
	return v, a.code == http.StatusOK && json.Unmarshal([]byte(a.body), &v) == nil
}

// running returns the nodes whose process has not ended.
func (g *group) running() []*node {
	return slices.DeleteFunc(slices.Clone(g.nodes), func(n *node) bool { return n.process == nil || n.hasEnded() })
}

// leading waits until one of the nodes leads and is ready, in the view of a majority of the running ones.
func (g *group) leading(but ...*node) *node {
	g.t.Helper()
	var leads *node
	until(g.t, "one leads", func() bool {
		votes := map[uint64]int{}
		leads = nil
		var term uint64
		list := slices.DeleteFunc(g.running(), func(n *node) bool { return slices.Contains(but, n) })
		for _, n := range list {
			v, ok := n.view()
			if !ok {
				continue
			}
			if votes[v.Leader]++; v.Leader == v.Node && v.NotReady == "" && v.Term >= term {
				leads, n.id, term = n, v.Node, v.Term
			}
		}
		return leads != nil && votes[leads.id] > len(list)/2
	})
	return leads
}

// inOneTerm calls do with the leader, and again if leadership has moved meanwhile, as it may on a slow machine at any time. What is wrong in the end is an error.
func (g *group) inOneTerm(do func(leads *node) (wrong string)) {
	g.t.Helper()
	for {
		leads := g.leading()
		term := leads.term()
		wrong := do(leads)
		if g.leading().term() != term {
			continue
		}
		if wrong != "" {
			g.t.Error(wrong)
		}
		return
	}
}

// term is the node's term of the election.
func (n *node) term() uint64 {
	n.g.t.Helper()
	return decode[api.Cluster](n.g.t, n.settled(http.MethodGet, "/v1/cluster", "")).Term
}

// followers returns the running nodes but one.
func (g *group) followers(leads *node) []*node {
	return slices.DeleteFunc(g.running(), func(n *node) bool { return n == leads })
}

// leaders returns the members in the view of a node.
func (n *node) leaders() api.LeaderList {
	n.g.t.Helper()
	return decode[api.LeaderList](n.g.t, n.get("/v1/leaders"))
}

// untilMembers waits until the members are exactly these nodes, all of them voters, in the view of each of them.
func (g *group) untilMembers(want ...*node) {
	g.t.Helper()
	addresses := map[string]bool{}
	for _, n := range want {
		addresses[n.address] = true
	}
	var got string
	defer func() {
		if g.t.Failed() {
			g.t.Logf("members: %s", got)
		}
	}()
	until(g.t, fmt.Sprintf("the members are %v", slices.Sorted(maps.Keys(addresses))), func() bool {
		for _, n := range want {
			if n.hasEnded() {
				g.t.Fatalf("%v has ended: %s", n, n.readStderr())
			}
		}
		for _, n := range want {
			a := n.get("/v1/leaders")
			got = fmt.Sprintf("%v: %v", n, a)
			var list api.LeaderList
			if a.code != http.StatusOK || json.Unmarshal([]byte(a.body), &list) != nil || len(list.Leaders) != len(want) {
				return false
			}
			for _, l := range list.Leaders {
				if !l.Votes || !addresses[l.Address] || l.Status == api.LeaderSilent || l.Status == api.LeaderUnknown {
					return false
				}
				if l.Address == n.address {
					n.id = l.ID
				}
			}
		}
		return true
	})
}

// index returns the log position of the node's reads.
func (n *node) index() uint64 { return n.get("/v1/cluster").number("X-Bridgefour-Index") }

// untilLevel waits until the nodes' reads have at least the leader's present log position.
func (g *group) untilLevel(nodes ...*node) {
	g.t.Helper()
	want := g.leading().index()
	for _, n := range nodes {
		until(g.t, fmt.Sprintf("%v has log position %d", n, want), func() bool { return n.index() >= want })
	}
}

// tiny is the body of a job of one task.
func tiny(name, command string) string {
	return fmt.Sprintf(`{"name":%q,"program":{"command":["sh","-c",%q]},"range":{"from":1,"to":1}}`, name, command)
}

// needRoot skips a test that is not run by root.
func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("left out: only root can %s", what)
	}
}
