package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// saveCount saves a snapshot of a state that is the count of the entries so far.
func (n *node) saveCount() error {
	n.mu.Lock()
	first, _ := strconv.Atoi(string(n.snapshot))
	count, index := first+len(n.entries), n.entries[len(n.entries)-1].Index
	n.mu.Unlock()
	return n.SaveSnapshot(index, func(w io.Writer) error { _, err := fmt.Fprint(w, count); return err })
}

func (n *node) wantSnapshot(want string) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if string(n.snapshot) != want {
		n.t.Fatalf("started from snapshot %q, want %q", n.snapshot, want)
	}
}

func snapFiles(tb testing.TB, dir string) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "snap", "*"))
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

func TestSnapshotAndTail(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	for i := range 5 {
		n.proposeNumbers(10*i, 10*i+10, 100)
		n.untilEntries(10*i + 10)
		if err := n.saveCount(); err != nil {
			t.Fatal(err)
		}
		if got, want := len(snapFiles(t, dir)), min(i+1, 2); got != want {
			t.Errorf("%d snapshot files after %d snapshots, want %d", got, i+1, want)
		}
	}
	if err := n.saveCount(); err == nil {
		t.Error("second snapshot at the same entry")
	}
	if err := n.SaveSnapshot(1<<40, nil); err == nil {
		t.Error("snapshot of an entry that is not there")
	}
	n.proposeNumbers(50, 53, 100)
	n.untilEntries(53)
	n.stop()
	for range 2 {
		n = start(t, Config{Dir: dir}).lead()
		n.wantSnapshot("50")
		n.wantNumbers(50, 53)
		n.stop()
	}
	// Without the newest file: the older one and the log give the same.
	if err := os.Remove(snapFiles(t, dir)[1]); err != nil {
		t.Fatal(err)
	}
	n = start(t, Config{Dir: dir}).lead()
	n.wantSnapshot("40")
	n.wantNumbers(40, 53)
	if err := n.saveCount(); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n = start(t, Config{Dir: dir}).lead()
	n.wantSnapshot("53")
	n.stop()
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 10, 100)
	n.untilEntries(10)
	if err := n.saveCount(); err != nil {
		t.Fatal(err)
	}
	n.stop()
	path := snapFiles(t, dir)[0]
	data := readFile(t, path)
	data[len(data)/2] ^= 4
	writeFile(t, path, data)
	if _, err := Open(Config{Dir: dir}); err == nil || !containsAll(err.Error(), path, "damaged") {
		t.Fatalf("Open = %v, want an error that names %s", err, path)
	}
	if err := os.Remove(path); err != nil { // the way out that the error names
		t.Fatal(err)
	}
	n = start(t, Config{Dir: dir}).lead()
	n.wantSnapshot("")
	n.wantNumbers(0, 10)
}

func TestSnapshotThatTheLogDoesNotKnowIsDropped(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 10, 100)
	n.untilEntries(10)
	begun, err := n.await(t.Context(), func(ref core.Ref) core.Input { return core.BeginSnapshot{Ref: ref, Index: 5} })
	if err != nil {
		t.Fatal(err)
	}
	meta := begun.Position
	n.stop()
	// A crash after the file was written and before it was recorded, and one while it was being written.
	if err := n.store.create(meta, func(w io.Writer) error { _, err := io.WriteString(w, "orphan"); return err }); err != nil {
		t.Fatal(err)
	}
	writeFile(t, n.store.path(meta)+tmpExt, []byte("half"))
	n = start(t, Config{Dir: dir}).lead()
	n.wantSnapshot("")
	n.wantNumbers(0, 10)
	if files := snapFiles(t, dir); len(files) > 1 {
		t.Errorf("left over: %v", files)
	}
	n.proposeNumbers(10, 11, 100)
	n.untilEntries(11)
	if err := n.saveCount(); err != nil {
		t.Fatal(err)
	}
	if files := snapFiles(t, dir); len(files) != 1 {
		t.Errorf("files after the next snapshot: %v, want one", files)
	}
}

func TestSnapshotsDuringLoad(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir, SnapshotBytes: 4 << 20}).lead()
	// A snapshot that takes arbitrarily long stops nothing.
	n.proposeNumbers(0, 1, 100)
	n.untilEntries(1)
	writing, goOn := make(chan struct{}), make(chan struct{})
	slow := make(chan error)
	go func() {
		slow <- n.SaveSnapshot(n.entries[0].Index, func(w io.Writer) error {
			close(writing)
			<-goOn
			_, err := fmt.Fprint(w, 1)
			return err
		})
	}()
	<-writing
	n.proposeNumbers(1, 100, 100)
	n.untilEntries(100)
	if err := n.saveCount(); err == nil || !strings.Contains(err.Error(), "another one is being saved") {
		t.Errorf("second snapshot at once = %v", err)
	}
	close(goOn)
	if err := <-slow; err != nil {
		t.Fatal(err)
	}

	const rounds, each = 5, 100
	const count = 100 + rounds*each
	saved := make(chan error, 1)
	saved <- nil
	for i := range rounds { // each is more than the log may grow by, and goes on while the snapshot before it is saved
		n.proposeNumbers(100+i*each, 100+(i+1)*each, 100_000)
		n.until("the wish for a snapshot", func() bool { return n.wants > i })
		if err := <-saved; err != nil {
			t.Fatal(err)
		}
		go func() { saved <- n.saveCount() }()
	}
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	n.untilEntries(count)
	n.stop()
	segs := walFiles(t, dir)
	if first := segs[0]; first.seq == 0 {
		t.Errorf("the log still begins with %s after %d snapshots", first.path, rounds)
	}
	n = start(t, Config{Dir: dir}).lead()
	first, err := strconv.Atoi(string(n.snapshot))
	if err != nil {
		t.Fatal(err)
	}
	n.wantNumbers(first, count)
}

func TestFailedSnapshotChangesNothing(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 10, 100)
	n.untilEntries(10)
	broken := errors.New("broken")
	if err := n.SaveSnapshot(n.entries[9].Index, func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("SaveSnapshot = %v, want %v", err, broken)
	}
	if files := snapFiles(t, dir); len(files) != 0 {
		t.Errorf("left over: %v", files)
	}
	if err := n.saveCount(); err != nil {
		t.Errorf("snapshot after a failed one = %v", err)
	}
}

func TestSnapshotFileRefusesEveryFlippedBit(t *testing.T) {
	store := snapStore{dir: t.TempDir()}
	m := core.Position{Index: 12, Term: 3, Members: &Members{Cluster: "c", List: []Member{{ID: 1, Address: "a:1", Directory: "d", Voter: true}}}}
	if err := store.create(m, func(w io.Writer) error { _, err := io.WriteString(w, "the state"); return err }); err != nil {
		t.Fatal(err)
	}
	body, err := store.open(m)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(body); err != nil || string(text) != "the state" || !body.at.Members.Equal(m.Members) {
		t.Errorf("open = %q, %+v, %v", text, body.at.Members, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	forEachDamage(t, store.path(m), func(what string) {
		if body, err := store.open(m); err == nil {
			t.Errorf("%s: opened", what)
			_ = body.Close()
		} else if !containsAll(err.Error(), store.path(m), "damaged", "move it away") {
			t.Errorf("%s: error does not name the file and the way out: %v", what, err)
		}
	})
}

func TestSnapshotThatFailsLeavesNothing(t *testing.T) {
	store := snapStore{dir: t.TempDir()}
	broken := errors.New("broken")
	m := core.Position{Index: 1, Term: 1, Members: &Members{}}
	if err := store.create(m, func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("create = %v, want %v", err, broken)
	}
	if metas, err := store.list(); err != nil || len(metas) != 0 {
		t.Errorf("list = %v, %v, want none", metas, err)
	}
}
