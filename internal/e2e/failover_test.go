package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// loss is a way in which a group loses its leader, and gets it back.
type loss struct {
	group func(t *testing.T) *group
	lose  func(n *node)
	// lost checks the lost node while another one leads: it must not act as leader.
	lost func(n *node, job uint64)
	back func(n *node)
}

// TestLeaderLost loses the leader in every way, while a job runs.
func TestLeaderLost(t *testing.T) {
	t.Parallel()
	three := func(t *testing.T) *group { t.Helper(); return newGroup(t, 3) }
	linked := func(t *testing.T) *group { t.Helper(); return newLinkedGroup(t, 3) }
	heal := func(n *node) { n.g.net.heal() }
	for name, how := range map[string]loss{
		"killed": {
			group: three, lose: func(n *node) { n.kill() }, lost: func(*node, uint64) {}, back: func(n *node) { n.start() },
		},
		"stopped": {
			group: three, lose: func(n *node) { n.signal(syscall.SIGSTOP) }, lost: func(*node, uint64) {}, back: wakeUp,
		},
		"ended": {
			group: three, lose: end, lost: func(*node, uint64) {}, back: func(n *node) { n.start() },
		},
		"cut off": {
			group: linked, lose: func(n *node) { n.g.net.set(true, append(n.in(true), n.out(true)...)...) }, lost: noLies, back: heal,
		},
		"deaf": {
			group: linked, lose: func(n *node) { n.g.net.set(true, n.in(true)...) }, lost: noLies, back: heal,
		},
		"mute": {
			group: linked, lose: func(n *node) { n.g.net.set(true, n.out(true)...) }, lost: noLies, back: heal,
		},
		"cut off from leaders": { // workers and clients still reach it
			group: linked, lose: func(n *node) { n.g.net.set(true, append(n.in(false), n.out(false)...)...) }, lost: noLies, back: heal,
		},
		"unplugged": {
			group: func(t *testing.T) *group { t.Helper(); return newSpacedGroup(t, 3) },
			lose:  unplug, lost: noLiesInside, back: plugIn,
		},
		"slow disk": {
			group: newFrozenGroup, lose: freeze, lost: func(*node, uint64) {}, back: thaw,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			loseLeader(how.group(t), how)
		})
	}
}

// end ends a leader in order: it hands over while it still leads.
func end(n *node) {
	n.signal(syscall.SIGTERM)
	n.wantExit(0)
	text := n.readStderr()
	last := text[strings.LastIndex(text, "msg=leading"):]
	if !strings.Contains(last, "handed over") && !strings.Contains(last, "no leader is known") {
		n.g.t.Errorf("%v has led to its end: %s", n, last)
	}
}

// loseLeader runs a job while the leader is lost, and comes back. Four tasks run at that moment; none of them is run again. Clients that wait,
// follow logs or follow events continue by themselves.
func loseLeader(g *group, how loss) {
	t := g.t
	workers := g.workers(2)
	s := g.begin(plan{tasks: 12, free: 4, before: []step{log("begin $B4_TASK")}, after: []step{log("end $B4_TASK")}})
	s.untilBegun(4)
	id := s.id
	startWait := func() *process {
		return g.start("wait", "wait", strconv.FormatUint(id, 10), "--json", "--cluster", g.known)
	}
	wait := startWait()
	logs := g.start("logs", "logs", "-f", strconv.FormatUint(id, 10), "--cluster", g.known)
	events := g.follow()
	submits := g.submits()
	until(t, "the state of the job, logs and events arrive", func() bool {
		if wait.hasEnded() { // a client whose first request finds no leader gives up after some seconds
			wait = startWait()
		}
		return strings.Contains(wait.readStderr(), `"status"`) && strings.Count(logs.readStdout(), "begin") >= 8 && len(events.received()) > 0
	})

	lead := g.leading()
	submits.untilMore()
	lost := time.Now()
	how.lose(lead)
	next := g.leading(lead)
	took := time.Since(lost)
	submits.untilMore()
	t.Logf("%v was lost; %v led %v later; a client's submit was acknowledged after %v", lead, next,
		took.Round(time.Millisecond), time.Since(lost).Round(time.Millisecond))
	until(t, "the workers join it", func() bool {
		next = g.leading(lead) // on a slow machine leadership may move again
		return !slices.ContainsFunc(workers, func(w *process) bool { return !strings.Contains(w.readStderr(), "leader="+next.address+" ") })
	})
	how.lost(lead, id)
	s.open(s.waiting())
	s.untilDone(5)
	s.openAll(1)
	s.untilDone(11)

	how.back(lead)
	until(t, "the lost node follows", func() bool { v, ok := lead.view(); return ok && v.Leader != 0 && v.Leader != v.Node })
	var job api.Job
	until(t, "it answers a strong read", func() bool {
		a := lead.get(fmt.Sprintf("/v1/jobs/%d?consistency=strong", id))
		if a.code != http.StatusOK {
			return false
		}
		job = decode[api.Job](t, a)
		return true
	})
	if job.Stages[0].Done < 11 {
		t.Errorf("a strong read at %v: %d done, want at least the 11 that were known to be", lead, job.Stages[0].Done)
	}
	s.openAll(0)
	s.wantDoneOnce()
	wait.wantExit(0)
	logs.wantExit(0)
	wantLines(t, logs.readStdout(), id, s.ledger.count())
	for _, n := range g.nodes {
		events.wantAll(n, id)
	}
	submits.wantKept(g, lead)
}

// wantLines checks that the logs of a job of loseLeader have each line of a task once, or more often if the task was begun more than once.
func wantLines(t *testing.T, text string, job uint64, begun map[int]int) {
	t.Helper()
	text = strings.ReplaceAll(text, "#1", "") // the winning attempts were not known yet
	once := true
	for task, n := range begun {
		once = once && n == 1
		for _, word := range []string{"begin", "end"} {
			line := fmt.Sprintf("%d/map/%d: %s %d\n", job, task, word, task)
			if n == 1 && strings.Count(text, line) != 1 || !strings.Contains(text, fmt.Sprintf(": %s %d\n", word, task)) {
				t.Errorf("task %d was begun %d times, and its line %q does not occur as often: %s", task, n, line, text)
			}
		}
	}
	if got := strings.Count(text, "\n"); once && got != 2*len(begun) {
		t.Errorf("%d lines of logs, want %d: %s", got, 2*len(begun), text)
	}
}

// in returns the routes to a node, and out those from it: of the other leaders, and of all others if set.
func (n *node) in(everyone bool) []route {
	var list []route
	for _, other := range n.g.nodes {
		if other != n {
			list = append(list, route{other.id, n.id})
		}
	}
	if everyone {
		list = append(list, route{others, n.id})
	}
	return list
}

func (n *node) out(everyone bool) []route {
	list := n.in(everyone)
	for i, r := range list {
		list[i] = route{r.to, r.from}
	}
	return list
}

// noLies sends requests to a leader that is cut off: it must neither accept a write nor answer a strong read.
func noLies(n *node, job uint64) {
	t := n.g.t
	submit := make(chan answer, 1)
	go func() { submit <- n.request(http.MethodPost, "/v1/jobs", tiny("lost", "true")) }()
	if a := n.get(fmt.Sprintf("/v1/jobs/%d?consistency=strong", job)); a.code != http.StatusServiceUnavailable {
		t.Errorf("%v is cut off, and answers a strong read: %v, want 503", n, a)
	}
	// One that receives messages knows the new leader, and cannot reach it.
	if a := <-submit; a.code != http.StatusServiceUnavailable {
		t.Errorf("%v is cut off, and answers a submit: %v, want 503", n, a)
	}
	until(t, "its answers are marked as stale", func() bool {
		a := n.get(fmt.Sprintf("/v1/jobs/%d", job))
		return a.code == http.StatusOK && a.number("X-Bridgefour-Age") > 1000
	})
	until(t, "it is not ready", func() bool { return n.get("/readyz").code == http.StatusServiceUnavailable })
}

// wakeUp continues a stopped leader, which finds requests that were sent before: it must not answer as leader.
func wakeUp(n *node) {
	t := n.g.t
	const strong, submit = "GET /v1/jobs/1?consistency=strong HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
		"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
	body := tiny("asleep", "true")
	var conns []net.Conn
	for i := range 20 {
		conn, err := net.Dial("tcp", n.listen) //nolint:noctx // the kernel answers
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // only read
		text := strong
		if i%4 == 0 {
			text = fmt.Sprintf(submit, len(body), body)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	n.signal(syscall.SIGCONT)
	for i, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(asking))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			continue // no answer is acceptable
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			continue
		}
		a := answer{code: resp.StatusCode, header: resp.Header, body: string(text)}
		switch {
		case i%4 == 0 && a.code == http.StatusCreated:
			job := decode[api.Job](t, a)
			if kept := n.g.current(job.ID); kept.Name != "asleep" {
				t.Errorf("a submit acknowledged after a pause as job %d is %q", job.ID, kept.Name)
			}
		case i%4 != 0 && a.code == http.StatusOK:
			if job := decode[api.Job](t, a); job.Stages[0].Done < 11 {
				t.Errorf("a strong read after a pause: %d done, want at least the 11 that were known to be", job.Stages[0].Done)
			}
		}
	}
}

// newFrozenGroup is a group whose leaders have a disk each, which can be frozen.
func newFrozenGroup(t *testing.T) *group {
	t.Helper()
	needRoot(t, "mount the disks that are to hang")
	g := emptyGroup(t)
	for range 3 {
		n := g.newNode("")
		newImage(t, n.dir+".image", n.dir)
	}
	g.setPeers()
	for _, n := range g.nodes {
		n.start()
	}
	g.knowAll()
	g.leading()
	return g
}

// freeze makes the disk of a leader hang: writes block.
func freeze(n *node) {
	fsfreeze(n.g.t, "--freeze", n.dir)
	n.g.t.Cleanup(func() { fsfreeze(n.g.t, "--unfreeze", n.dir) }) // processes blocked by it cannot be killed
}

func thaw(n *node) { fsfreeze(n.g.t, "--unfreeze", n.dir) }

func fsfreeze(t *testing.T, how, dir string) {
	t.Helper()
	out, err := command(t, "fsfreeze", how, dir)
	if err != nil && !bytes.Contains(out, []byte("Invalid argument")) { // it is not frozen
		t.Errorf("fsfreeze %s %s: %v: %s", how, dir, err, out)
	}
}
