package e2e

import (
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// atWork is a group with two workers and a job of twelve tasks, of which four are done and four run and wait, each for a gate of its
// own. Small jobs are submitted all the time.
type atWork struct {
	*scenario

	g       *group
	submits *submitter
}

func newWork(g *group) *atWork {
	g.t.Helper()
	g.workers(2)
	w := &atWork{scenario: g.begin(plan{tasks: 12, free: 4}), g: g}
	w.untilBegun(4)
	w.submits = g.submits()
	return w
}

// goOn lets one more task end, and waits until the log has that, and another submit.
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

// wantAllKept lets all tasks end. None was run twice, and nothing acknowledged is missing.
func (w *atWork) wantAllKept() {
	w.g.t.Helper()
	w.openAll(0)
	w.wantDoneOnce()
	w.submits.wantKept(w.g, w.g.leading())
}

// leadersCommand runs a command about leaders, which must succeed.
func (g *group) leadersCommand(args ...string) string {
	g.t.Helper()
	code, stdout, stderr := g.cli(append([]string{"leaders"}, args...)...)
	if code != 0 {
		g.t.Fatalf("leaders %q: exit code %d: %s", args, code, stderr)
	}
	return stdout
}

// TestGrowAndShrink makes three leaders of one and one of three, while a job is at work. The workers were told about the first; of
// the others they learn.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1)
	w := newWork(g)
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

	// Any of them may be lost now, also the only one that was ever named to the workers.
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
	g.leadersCommand("remove", strconv.FormatUint(leads.id, 10)) // the one that leads
	wantRemoved(leads)
	g.untilMembers(staying)
	w.goOn()

	// Who was removed does not come back.
	leads.start()
	wantRemoved(leads)
	w.wantAllKept()
}

// wantRemoved waits until a leader has noticed that it is none any more, and said what that means.
func wantRemoved(n *node) {
	n.g.t.Helper()
	n.wantExit(1)
	wantText(n.g.t, n.readStderr(), "removed")
}

// TestReplaceLeaders replaces a dead leader by one with another number and another address, and the next by one at the address of
// the one before.
func TestReplaceLeaders(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	w := newWork(g)
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
			t.Errorf("the new leader has number %d, and that was somebody else's", next.id)
		}
		w.tellClients(next.address)
		w.goOn()
	}
	w.wantAllKept()
}

// TestRollingRestart ends the leaders one by one and starts them again, twice, under load.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	w := newWork(g)
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

// TestLeaderMoves starts the leaders one by one at other addresses, over the data directories that they had: they are who they were,
// and the workers, which were told the first addresses only, find them.
func TestLeaderMoves(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	w := newWork(g)
	for _, n := range g.nodes { // in the end nobody is where he was
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
	w := newWork(g)
	kept, old, gone := g.nodes[0], g.nodes[1], g.nodes[2]
	if code, _, stderr := g.cli("recover", "--data-dir", kept.dir); code == 0 {
		t.Errorf("recover of a leader that runs: exit code 0: %s", stderr)
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
		t.Errorf("recover of a directory that is not there: exit code %d, it is there: %v: %s", code, exists(gone.dir), stderr)
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

	// A directory of the cluster that was is told so, and harms nobody.
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
