package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// baselines are the last commits whose programs read no higher feature level. They stand for every release before the next level.
var baselines = []baseline{
	{commit: "9bc36db", level: 0},
	{commit: "a2c43e3", level: 1},
}

type baseline struct {
	commit       string
	level        uint32
	dir, program string // its source, and what it builds
}

// TestUpgrade runs clusters of the program under test and of each baseline, which is built from the history of this repository.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, old := range baselines {
		t.Run(fmt.Sprintf("level %d", old.level), func(t *testing.T) {
			t.Parallel()
			old.build(t)
			t.Run("replay", func(t *testing.T) {
				t.Parallel()
				upgradeReplay(t, old)
			})
			t.Run("rolling", func(t *testing.T) {
				t.Parallel()
				upgradeRolling(emptyGroup(t), old)
			})
			t.Run("snapshots", func(t *testing.T) {
				t.Parallel()
				upgradeSnapshots(emptyGroup(t), old)
			})
		})
	}
}

// build unpacks the baseline's source, and builds its program.
func (b *baseline) build(t *testing.T) {
	t.Helper()
	if out, err := command(t, "git", "rev-parse", "--verify", "--quiet", b.commit+"^{commit}"); err != nil {
		t.Skipf("left out: commit %s is not in the history of this checkout, or there is no git (%v %s); git fetch --unshallow brings it",
			b.commit, err, out)
	}
	b.dir = t.TempDir()
	if out, err := command(t, "sh", "-c", `cd ../.. && git archive "$1" | tar -x -C "$2"`, "sh", b.commit, b.dir); err != nil {
		t.Fatalf("unpack commit %s: %v: %s", b.commit, err, out)
	}
	b.program = filepath.Join(b.dir, "bridgefour-"+b.commit)
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-X main.version="+b.commit, "-o", b.program, "./cmd/bridgefour")
	build.Dir = b.dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the baseline: %v: %s", err, out)
	}
}

// upgradeRolling replaces three leaders one after the other while a job is at work and clients submit. Leaders and workers of both
// versions work together, whichever leads; the feature level rises with the last one.
func upgradeRolling(g *group, old baseline) {
	t := g.t
	for range 3 {
		g.newNode("").program = old.program
	}
	g.setPeers()
	for _, n := range g.nodes {
		n.start()
	}
	g.knowAll()
	g.leading()
	w := newWork(g, true) // with two workers of the new version
	oldWorker := g.launch("worker-old", g.commandOf(context.Background(), old.program, "worker", "--data-dir", g.path("worker-old"), "--leader", g.known, "--slots", "2"))
	g.untilAlive(3)
	until(t, "the old worker works", func() bool { return len(w.ledger.entries()) == 10 })

	// A job whose key was used before an upgrade is the same job after it.
	keyed := &api.JobRequest{Name: "keyed", Inputs: []string{g.path("in")}, Split: "none", Program: item("true"), Dir: g.dir}
	first, err := g.client.Submit(t.Context(), keyed, "the-key")
	if err != nil {
		t.Fatal(err)
	}
	again := func(step string) {
		t.Helper()
		if job, err := g.client.Submit(t.Context(), keyed, "the-key"); err != nil || job.ID != first.ID {
			t.Errorf("%s: the key of job %d gives job %d, %v", step, first.ID, job.ID, err)
		}
	}
	a, b, c := g.nodes[0], g.nodes[1], g.nodes[2]

	upgrade(a)
	w.goOn()
	replace(a, old.program) // until the last one is upgraded there is a way back
	upgrade(a)
	for _, leads := range []*node{a, b} { // old to new, and new to old
		g.lead(leads)
		again(fmt.Sprintf("%v leads two versions", leads))
		w.goOn()
		g.wantLevel(old.level, a)
	}
	upgrade(b)
	g.lead(b)
	w.goOn()
	g.lead(c) // the last old one
	again("the last old leader leads")
	w.goOn()
	g.wantLevel(old.level, a, b)
	upgrade(c)
	g.untilLevelIs(state.FeatureLevel, a, b, c)
	again("all are upgraded")
	w.goOn()
	lead := g.leading()
	lead.kill()
	g.leading(lead)
	lead.start()
	again("after a failover")
	g.untilMembers(a, b, c)

	// From here on there is no way back: neither over the data directory nor as a new leader. Nothing is damaged by the attempt.
	away := g.followers(g.leading())[0]
	stop(away)
	away.program = old.program
	away.start()
	away.wantExit(1)
	reads := fmt.Sprintf("reads feature level %d", old.level)
	if got := away.readStderr(); !strings.Contains(got, "written by a newer version of bridgefour") && !strings.Contains(got, reads) {
		t.Errorf("neither its own log nor another leader has refused it: %s", got) // whichever is first
	}
	away.program = binary
	away.start()
	g.untilMembers(a, b, c)

	// A new leader that is older than the level is refused before it gets anything.
	late := g.newNode("", "--join", g.leading().address)
	late.program = old.program
	late.start()
	late.wantExit(1)
	wantText(t, late.readStderr(), "refuses this node", "(program "+old.commit+") "+reads, fmt.Sprintf("level %d", state.FeatureLevel), "install bridgefour")
	wantText(t, a.readStderr()+b.readStderr()+c.readStderr(), "a node was refused", reads)
	g.nodes = g.nodes[:3]

	w.wantAllKept()
	if oldWorker.hasEnded() {
		t.Errorf("the old worker has ended: %s", oldWorker.readStderr())
	}
}

// upgradeSnapshots has a leader of each version send its snapshot to a new leader of the other, while the feature level is the old one.
func upgradeSnapshots(g *group, old baseline) {
	t := g.t
	was := g.newNode("")
	was.program = old.program
	was.start()
	g.knowAll()
	g.leading()
	now := g.newNode("", "--join", was.address)
	now.start()
	g.untilMembers(was, now)
	g.know(was.address, now.address)
	g.workers(1)
	keyed := &api.JobRequest{Name: "0", Lines: &api.Lines{Items: []string{"one", "two"}}, Program: item("true"), Dir: g.dir}
	submit := func() uint64 {
		t.Helper()
		job, err := g.client.Submit(t.Context(), keyed, "the-key")
		if err != nil {
			t.Fatal(err)
		}
		return job.ID
	}
	jobs := []uint64{submit()}
	for i, command := range []string{"true", "exit 3"} {
		jobs = append(jobs, g.submit(&api.JobRequest{Name: fmt.Sprint(i + 1), Range: &api.Range{From: 1, To: 300}, Program: item(step(command)), Output: g.path(command)}))
	}
	known := func(job api.Job) api.Job { // what both versions know of a job
		for i := range job.Stages {
			job.Stages[i].Role, job.Stages[i].Parts = "", false
			job.Stages[i].Retried = 0 // older ones count the last failure of a dead task, too
		}
		return job
	}
	want := map[uint64]api.Job{}
	for _, id := range jobs {
		want[id] = known(g.ends(id))
	}
	var last *node
	for _, sender := range []*node{was, now} {
		if last != nil {
			g.leadersCommand("remove", strconv.FormatUint(last.id, 10))
			wantRemoved(last)
		}
		last = g.newNode("", "--join", sender.address)
		if sender == now {
			last.program = old.program
		}
		g.lead(sender)
		last.start()
		g.untilMembers(was, now, last)
		g.untilLevel(last)
		if len(sh(t, last.dir, `find . -name '*.snap'`)) == 0 {
			t.Errorf("%v has no snapshot: it was sent the whole log, or nothing", last)
		}
		for id, job := range want {
			if got := known(decode[api.Job](t, last.get(fmt.Sprintf("/v1/jobs/%d", id)))); !reflect.DeepEqual(got, job) {
				t.Errorf("at %v, job %d is %+v, want %+v", last, id, got, job)
			}
		}
		g.lead(last)
		if id := submit(); id != jobs[0] {
			t.Errorf("at %v the key of job %d gives job %d", last, jobs[0], id)
		}
		g.lead(was)
	}
	g.wantLevel(old.level, now)
	upgrade(last)
	g.wantLevel(old.level, now, last)
	upgrade(was)
	g.untilLevelIs(state.FeatureLevel, was, now, last)
	if id := submit(); id != jobs[0] {
		t.Errorf("at the new level the key of job %d gives job %d", jobs[0], id)
	}
}

// stop ends a leader in order: it hands over if it leads.
func stop(n *node) {
	n.g.t.Helper()
	n.signal(syscall.SIGTERM)
	n.wantExit(0)
}

// upgrade gives a leader the program under test.
func upgrade(n *node) { n.g.t.Helper(); replace(n, binary) }

// replace replaces the program of a leader, on the same data directory.
func replace(n *node, program string) {
	n.g.t.Helper()
	stop(n)
	n.program = program
	n.start()
	n.g.untilMembers(n.g.running()...)
}

// lead has a leader lead: the one that does hands over, while no other is known to it. Leaders of the baselines may end without: then the others elect one, and
// it is tried again.
func (g *group) lead(want *node) {
	g.t.Helper()
	for range 50 {
		leads := g.leading()
		if leads == want {
			return
		}
		g.untilLevel(want)
		others := slices.DeleteFunc(g.followers(leads), func(n *node) bool { return n == want })
		for _, n := range others {
			n.signal(syscall.SIGSTOP)
		}
		until(g.t, "no other is known to it", func() bool {
			list := leads.leaders().Leaders
			return !slices.ContainsFunc(others, func(n *node) bool {
				return slices.ContainsFunc(list, func(l api.LeaderNode) bool { return l.Address == n.address && l.Status != api.LeaderSilent })
			})
		})
		leads.signal(syscall.SIGTERM)
		until(g.t, "it has handed over", func() bool { v, ok := want.view(); return ok && v.Leader == v.Node || leads.hasEnded() })
		for _, n := range others {
			n.signal(syscall.SIGCONT)
		}
		leads.wantExit(0)
		leads.start()
		g.untilMembers(g.running()...)
	}
	g.t.Fatalf("%v does not become the leader", want)
}

// wantLevel wants a feature level in the eyes of nodes, which are of the new version.
func (g *group) wantLevel(level uint32, nodes ...*node) {
	g.t.Helper()
	for _, n := range nodes {
		if v := decode[api.Cluster](g.t, n.settled(http.MethodGet, "/v1/cluster", "")); v.Level != level {
			g.t.Errorf("%v is at feature level %d, want %d", n, v.Level, level)
		}
	}
}

func (g *group) untilLevelIs(level uint32, nodes ...*node) {
	g.t.Helper()
	for _, n := range nodes {
		until(g.t, fmt.Sprintf("%v is at feature level %d", n, level), func() bool { v, ok := n.view(); return ok && v.Level == level })
	}
}
