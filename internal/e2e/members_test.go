package e2e

import (
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// atWork is a scenario on a group: four of twelve tasks are done, and four wait at their gates. Small jobs are submitted all the time.
type atWork struct {
	*scenario

	g       *group
	submits *submitter
	older   bool // see plan
}

func newWork(g *group, older bool) *atWork {
	g.t.Helper()
	g.workers(2)
	w := &atWork{scenario: g.begin(plan{tasks: 12, free: 4, older: older}), g: g, older: older}
	w.untilBegun(4)
	w.submits = g.submits()
	return w
}

// goOn lets one more task end, and waits until it and another submit are logged.
func (w *atWork) goOn() {
	w.g.t.Helper()
	done := w.g.job(w.id).Stages[0].Done
	w.open(w.waiting())
	w.g.untilMap(w.id, "one more done", func(s api.Stage) bool { return s.Done > done })
	w.submits.untilMore()
}

// tellClients gives the clients the addresses of leaders; the workers must find them by themselves.
func (w *atWork) tellClients(list ...string) {
	w.g.t.Helper()
	w.submits.end()
	w.g.know(list...)
	w.submits.begin(w.g)
}

// wantAllKept lets all tasks end. None was run again, and nothing acknowledged is missing.
func (w *atWork) wantAllKept() {
	w.g.t.Helper()
	w.openAll(0)
	if w.older { // tasks that wait at their gates may have second attempts
		w.wantDone()
	} else {
		w.wantDoneOnce()
	}
	w.submits.wantKept(w.g, w.g.leading())
}

// leadersCommand runs a subcommand of leaders, which must succeed.
func (g *group) leadersCommand(args ...string) string {
	g.t.Helper()
	code, stdout, stderr := g.cli(append([]string{"leaders"}, args...)...)
	if code != 0 {
		g.t.Fatalf("leaders %q: exit code %d: %s", args, code, stderr)
	}
	return stdout
}

// TestGrowAndShrink grows a cluster from one leader to three and shrinks it to one, while a job runs. The workers are given the address of
// the first one only.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1)
	w := newWork(g, false)
	first := g.nodes[0]

	second := g.newNode("", "--join", first.address)
	second.start()
	g.untilMembers(first, second)
	w.goOn()

	third := g.newNode("")
	third.start()
	until(t, "the fresh leader is ready", func() bool { return third.get("/readyz").code == 200 })
	wantText(t, g.leadersCommand("add", third.address), "leader 3", third.address)
	g.untilMembers(first, second, third)
	wantText(t, g.leadersCommand(), first.address, second.address, third.address)
	w.goOn()

	// Any leader may be lost now, also the only one whose address the workers were given.
	first.kill()
	w.tellClients(second.address, third.address)
	g.leading()
	w.goOn()
	first.start()
	g.untilMembers(first, second, third)

	leads := g.leading()
	staying := g.followers(leads)[0]
	going := g.followers(leads)[1]
	w.tellClients(staying.address)
	g.leadersCommand("remove", strconv.FormatUint(going.id, 10))
	wantRemoved(going)
	g.untilMembers(leads, staying)
	w.goOn()
	g.leadersCommand("remove", strconv.FormatUint(leads.id, 10)) // the leader
	wantRemoved(leads)
	g.untilMembers(staying)
	w.goOn()

	// A removed leader does not come back.
	leads.start()
	wantRemoved(leads)
	w.wantAllKept()
}

// wantRemoved waits for the end of a removed leader, which must log the removal.
func wantRemoved(n *node) {
	n.g.t.Helper()
	n.wantExit(1)
	wantText(n.g.t, n.readStderr(), "removed")
}

// TestReplaceLeaders replaces a dead leader by one with another id and address, and the next by one at the address of the dead one.
func TestReplaceLeaders(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	w := newWork(g, false)
	members := g.nodes
	for i := range 2 {
		dead := g.leading()
		dead.kill()
		w.goOn()
		g.leadersCommand("remove", strconv.FormatUint(dead.id, 10))
		var address string
		if i == 1 {
			address = dead.address
		}
		next := g.newNode(address, "--join", g.known)
		next.start()
		var staying []*node
		for _, n := range members {
			if n != dead {
				staying = append(staying, n)
			}
		}
		members = append(staying, next)
		g.untilMembers(members...)
		if next.id <= 3 {
			t.Errorf("the new leader has id %d, which was used before", next.id)
		}
		w.tellClients(next.address)
		w.goOn()
	}
	w.wantAllKept()
}

// TestRollingRestart restarts the leaders one by one, twice, under load.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	w := newWork(g, false)
	for range 2 {
		for _, n := range g.nodes {
			n.signal(syscall.SIGTERM)
			n.wantExit(0)
			w.submits.untilMore()
			n.start()
			g.untilLevel(n)
		}
		w.goOn()
	}
	w.wantAllKept()
}

// TestLeaderMoves restarts the leaders one by one at other addresses, with their data directories: they stay the same members, and the
// workers, which were given the first addresses only, find them.
func TestLeaderMoves(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	w := newWork(g, false)
	for _, n := range g.nodes { // in the end all addresses have changed
		n.signal(syscall.SIGTERM)
		n.wantExit(0)
		n.address = ownAddress(t)
		n.listen = n.address
		n.start()
		g.untilMembers(g.nodes...)
		w.tellClients(n.address)
		w.goOn()
	}
	w.wantAllKept()
}

// TestRecover loses two of three data directories for good.
func TestRecover(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	w := newWork(g, false)
	kept, old, gone := g.nodes[0], g.nodes[1], g.nodes[2]
	if code, _, stderr := g.cli("recover", "--data-dir", kept.dir); code == 0 {
		t.Errorf("recover of a running leader: exit code 0: %s", stderr)
	}
	w.submits.end()
	g.untilLevel(g.nodes...)
	for _, n := range g.nodes {
		n.kill()
	}
	if err := os.RemoveAll(gone.dir); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := g.cli("recover", "--data-dir", gone.dir); code == 0 || exists(gone.dir) {
		t.Errorf("recover of a missing directory: exit code %d, it exists: %v: %s", code, exists(gone.dir), stderr)
	}
	code, stdout, stderr := g.cli("recover", "--data-dir", kept.dir)
	if code != 0 {
		t.Fatalf("recover: exit code %d: %s", code, stderr)
	}
	wantText(t, stdout, "leader 1", old.address, gone.address, "bridgefour leader --data-dir "+kept.dir)
	kept.start()
	g.leading()
	g.untilMembers(kept)
	g.untilAlive(2)

	// A directory of the former cluster is refused.
	old.start()
	old.wantExit(1)
	wantText(t, old.readStderr(), "recover")

	next := g.newNode("", "--join", kept.address)
	next.start()
	g.untilMembers(kept, next)
	w.tellClients(kept.address, next.address)
	w.goOn()
	w.wantAllKept()
}
