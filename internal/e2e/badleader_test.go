package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// TestBadDataDirectory starts a leader of three with data directories of others, or damaged ones. It names the file, the cause and the way
// out, and never starts with an empty log; the others continue.
func TestBadDataDirectory(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	var jobs []uint64
	for range 20 {
		jobs = append(jobs, g.submit(trivial()))
	}
	g.untilLevel(g.nodes...)
	n := g.followers(g.leading())[0]
	n.signal(syscall.SIGTERM)
	n.wantExit(0)
	good, other := n.dir, strconv.FormatUint(g.leading().id, 10)
	for _, test := range []struct {
		name  string
		spoil func(dir string)
		flags []string
		want  []string // what it says, beside the data directory
	}{
		{"newer format", func(dir string) { write(t, dir+"/log/FORMAT", "bridgefour log 999\n") }, nil, []string{"999"}},
		{"flipped bit in the log", func(dir string) { flip(t, oneOf(t, dir, ".wal"), 0.5) }, nil, []string{".wal", "damaged", "restore"}},
		{"log cut short", func(dir string) { cutShort(t, oneOf(t, dir, ".wal"), 0.5) }, nil, []string{".wal", "restore"}},
		{"no log", func(dir string) { remove(t, oneOf(t, dir, ".wal")) }, nil, []string{"missing", "restore"}},
		{"another id", func(string) {}, []string{"--id", other}, []string{"member " + strconv.FormatUint(n.id, 10), other}},
		{"another name", func(string) {}, []string{"--cluster-name", "urithiru"}, []string{"urithiru", "bridgefour"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.dir = g.path("bad-" + strings.ReplaceAll(test.name, " ", "-"))
			sh(t, "/", `cp -r "$1" "$2"`, good, n.dir)
			test.spoil(n.dir)
			before := string(sh(t, n.dir, `find . -type f ! -name LOCK -exec md5sum {} + | sort -k2`))
			was := n.flags
			n.flags = append(slices.Clone(was), test.flags...)
			n.start()
			n.flags = was
			n.t = t
			n.wantExit(1)
			wantText(t, n.readStderr(), append(test.want, n.dir)...)
			if after := string(sh(t, n.dir, `find . -type f ! -name LOCK -exec md5sum {} + | sort -k2`)); after != before {
				t.Errorf("it has changed what it refused:\n%s\nis\n%s", before, after)
			}
		})
	}

	// The disk is lost, and the service manager restarts the leader: its votes are lost too.
	n.dir = g.path("new-disk")
	n.start()
	n.wantExit(1)
	wantText(t, n.readStderr(), "another data directory", fmt.Sprintf("leaders remove %d", n.id), "join")
	n.dir = good
	n.start()
	g.untilMembers(g.nodes...)
	g.untilLevel(g.nodes...)
	for _, id := range jobs {
		for _, node := range g.nodes {
			if a := node.get(fmt.Sprintf("/v1/jobs/%d", id)); a.code != 200 {
				t.Errorf("%v: job %d: %v", node, id, a)
			}
		}
	}
}

// oneOf returns the largest file with an extension under a folder.
func oneOf(t *testing.T, dir, suffix string) string {
	t.Helper()
	var found string
	var size int64
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, suffix) {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() >= size {
			found, size = path, info.Size()
		}
		return err
	}); err != nil || found == "" {
		t.Fatalf("no %s under %s: %v", suffix, dir, err)
	}
	return found
}

// used returns the size of a file without the zeros at its end.
func used(t *testing.T, path string) int {
	t.Helper()
	return len(strings.TrimRight(readFile(t, path), "\x00"))
}

// flip flips one bit in the used part of a file, in the next word that is not zero: padding has no meaning.
func flip(t *testing.T, path string, where float64) {
	t.Helper()
	text := []byte(readFile(t, path))
	word := 0
	for at := int(where * float64(used(t, path))); at < len(text); at++ {
		if word++; text[at] < ' ' || text[at] > '~' {
			word = 0
		}
		if word == 4 {
			text[at] ^= 4
			write(t, path, string(text))
			return
		}
	}
	t.Fatalf("no word in the second half of %s", path)
}

func cutShort(t *testing.T, path string, where float64) {
	t.Helper()
	if err := os.Truncate(path, int64(where*float64(used(t, path)))); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// TestSnapshots flips a bit in a leader's newest snapshot, and truncates it: it is refused. From the intact one a new leader gets the state
// that the log no longer has.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1)
	n := g.nodes[0]
	lines := make([]byte, 10_000_000) // a hundred, which nothing compresses: so that a snapshot is worth while soon
	_, _ = rand.Read(lines)           // never fails
	for i := range lines {
		lines[i] |= 0x80
		if i%100_000 == 99_999 {
			lines[i] = '\n'
		}
	}
	var jobs []uint64
	for string(sh(t, n.dir, `find . -name '*.snap'`)) == "" {
		jobs = append(jobs, g.submit(&api.JobRequest{Name: strconv.Itoa(len(jobs)), Lines: &api.Lines{Raw: lines}, Program: item("true")}))
		if len(jobs) > 50 {
			t.Fatal("no snapshot after 500 MB of log")
		}
	}
	n.signal(syscall.SIGTERM)
	n.wantExit(0)
	snap := oneOf(t, n.dir, ".snap")
	good := readFile(t, snap)
	for _, spoil := range []func(){
		func() { flip(t, snap, 0.6) },
		func() { cutShort(t, snap, 0.6) },
	} {
		write(t, snap, good)
		spoil()
		n.start()
		n.wantExit(1)
		wantText(t, n.readStderr(), snap, "damaged", "copy")
	}
	write(t, snap, good)
	n.start()
	g.leading()
	next := g.newNode("", "--join", n.address)
	next.start()
	g.untilMembers(n, next)
	g.untilLevel(next)
	if got := string(sh(t, next.dir, `find . -name '*.snap'`)); got == "" {
		t.Error("the new leader has no snapshot: it was sent the whole log, or nothing")
	}
	for i, id := range jobs {
		if job := decode[api.Job](t, next.get(fmt.Sprintf("/v1/jobs/%d", id))); job.Name != strconv.Itoa(i) || job.Stages[0].Tasks != 100 {
			t.Errorf("at the new leader job %d is %q of %d tasks, want %q of 100", id, job.Name, job.Stages[0].Tasks, strconv.Itoa(i))
		}
	}
}

// TestOtherCluster starts a leader with the data directory of a leader of another cluster, with the same id: it is refused, both sides log
// the reason, and both clusters continue.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	ours, theirs := newGroup(t, 3), newGroup(t, 3)
	ids := map[*group]string{}
	for _, g := range []*group{ours, theirs} {
		v, _ := g.leading().view()
		ids[g] = v.ID
	}
	if ids[ours] == ids[theirs] || ids[ours] == "" {
		t.Fatalf("the clusters have the ids %q and %q", ids[ours], ids[theirs])
	}
	stray, away := ours.followers(ours.leading())[0], theirs.nodes[0]
	for _, n := range append([]*node{stray}, theirs.nodes...) {
		n.kill()
	}
	for _, n := range theirs.nodes { // it is the one of its number
		if n.id == stray.id {
			away = n
		}
	}
	own := stray.dir
	stray.dir = away.dir
	stray.start()
	said := func(n *node) bool {
		return strings.Contains(n.readStderr(), ids[ours]) && strings.Contains(n.readStderr(), ids[theirs])
	}
	until(t, "both sides name both clusters", func() bool { return said(stray) && slices.ContainsFunc(ours.followers(stray), said) })
	ours.submit(trivial())
	_ = stray.cmd.Process.Kill() // it may have ended
	<-stray.ended
	stray.dir = own
	stray.start()
	ours.untilLevel(ours.nodes...)
	for _, n := range theirs.nodes {
		n.start()
	}
	theirs.leading()
	theirs.submit(trivial())

	// A worker keeps its cluster, also if only the other one answers, and logs that; so does one with another cluster name.
	w := ours.worker("worker-1")
	until(t, "the worker has written down whose it is", func() bool { return strings.Contains(readFile(t, ours.path("worker-1", "cluster")), ids[ours]) })
	w.kill()
	for _, n := range ours.nodes {
		n.kill()
	}
	w = theirs.worker("x", "--data-dir", ours.path("worker-1"))
	until(t, "the worker names both clusters", func() bool {
		return strings.Contains(w.readStderr(), ids[ours]) && strings.Contains(w.readStderr(), ids[theirs])
	})
	named := theirs.worker("y", "--cluster-name", "urithiru")
	until(t, "the worker names both names", func() bool {
		return strings.Contains(named.readStderr(), "urithiru") && strings.Contains(named.readStderr(), "bridgefour")
	})
	theirs.workers(1)
	theirs.done(theirs.submit(trivial()))
	for _, p := range []*process{w, named} {
		if p.hasEnded() {
			t.Errorf("%s has ended: %s", p.name, p.readStderr())
		}
		if n := strings.Count(p.readStderr(), "refuse"); n > 5 {
			t.Errorf("%s says %d times that it is refused", p.name, n)
		}
	}
	if got := len(theirs.listWorkers()); got != 1 {
		t.Errorf("%d workers, want 1: those that were refused are none", got)
	}
}

// TestJoinRefused: a leader that cannot join names the reason. One that may join later keeps trying.
func TestJoinRefused(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1)
	lead := g.nodes[0]

	unused := ownAddress(t)
	n := g.newNode("", "--join", unused)
	n.start()
	until(t, "it reports that nothing listens there", func() bool { return strings.Contains(n.readStderr(), unused) })
	if n.hasEnded() {
		t.Errorf("it has ended: %s", n.readStderr())
	}
	n.signal(syscall.SIGINT)
	if code := n.wait(); code != 0 && code != 130 {
		t.Errorf("exit code %d, want 0 or 130", code)
	}

	// Both addresses are tried.
	n.flags[1] = unused + "," + lead.address
	n.start()
	g.untilMembers(lead, n)

	named := g.newNode("", "--join", lead.address, "--cluster-name", "urithiru")
	named.start()
	named.wantExit(1)
	wantText(t, named.readStderr(), "urithiru", "\"bridgefour\"", "this cluster's name")

	taken := g.newNode("", "--join", lead.address, "--id", "1")
	taken.start()
	taken.wantExit(1)
	wantText(t, taken.readStderr(), "leader 1", "leave the id out")

	busy := g.newNode(lead.address, "--join", lead.address)
	busy.start()
	busy.wantExit(1)
	wantText(t, busy.readStderr(), lead.address, "in use", "--listen")

	used := newGroup(t, 1)
	used.submit(trivial())
	code, _, stderr := g.cli("leaders", "add", used.nodes[0].address)
	if code == 0 {
		t.Error("a leader that has a job was added to another cluster")
	}
	wantText(t, stderr, used.nodes[0].address)
	code, _, stderr = g.cli("leaders", "add", unused)
	if code == 0 {
		t.Error("a leader that is not there was added")
	}
	wantText(t, stderr, unused)
	for _, args := range [][]string{
		{"leader", "--peers", "1=127.0.0.1:1,2=127.0.0.1:2"},
		{"leader", "--peers", "1=127.0.0.1:1,1=127.0.0.1:2,3=127.0.0.1:3", "--id", "1"},
		{"leader", "--peers", "one", "--id", "1"},
		{"leader", "--peers", "1=127.0.0.1:1", "--join", "127.0.0.1:2", "--id", "1"},
		{"leader", "--peers", "1=127.0.0.1:1,2=127.0.0.1:2,3=127.0.0.1:3", "--id", "4"},
		{"leader", "--join", "127.0.0.1:99999"},
	} {
		if code, _, stderr := g.cli(append(args, "--data-dir", g.path("never"))...); code != 2 || exists(g.path("never")) {
			t.Errorf("%q: exit code %d, want 2, and no data directory: %s", args, code, stderr)
		}
	}
}

// TestRemoveQuorum: a removal that leaves no quorum of leaders that answer must be forced.
func TestRemoveQuorum(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	lead := g.leading()
	dead, alive := g.followers(lead)[0], g.followers(lead)[1]
	g.untilMembers(g.nodes...)
	dead.kill()
	id := strconv.FormatUint(alive.id, 10)
	until(t, "the dead one is missed", func() bool {
		for _, l := range lead.leaders().Leaders {
			if l.ID == dead.id {
				return l.Status == api.LeaderSilent
			}
		}
		return false
	})
	code, _, stderr := g.cli("leaders", "remove", id)
	if code == 0 {
		t.Fatal("the last but one was removed")
	}
	wantText(t, stderr, "3 leaders", "2 of them answer", "without leader "+id, "majority is 2", "1 answers", "force")
	g.submit(trivial())

	g.leadersCommand("remove", id, "--force")
	wantRemoved(alive)
	until(t, "no write is accepted", func() bool { return lead.request("POST", "/v1/jobs", tiny("x", "true")).code == 503 })
	dead.start()
	g.untilMembers(lead, dead)
	g.submit(trivial())

	code, _, stderr = g.cli("leaders", "remove", "99")
	if code == 0 {
		t.Error("leader 99 was removed")
	}
	wantText(t, stderr, "99")
	g.leadersCommand("remove", strconv.FormatUint(dead.id, 10))
	code, _, stderr = g.cli("leaders", "remove", strconv.FormatUint(lead.id, 10), "--force")
	if code == 0 {
		t.Error("the last leader was removed")
	}
	wantText(t, stderr, "last")
}
