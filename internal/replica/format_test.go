package replica

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

var record = flag.Bool("record", false, "record testdata/format2 again: only before its release")

// TestFormatIsKept opens a data directory that an older program has written: with a snapshot, entries and changes of the members. What is
// in testdata is kept from its release on; a newer layout gets a directory beside it.
func TestFormatIsKept(t *testing.T) {
	kept := filepath.Join("testdata", "format2")
	if *record {
		recordFormat(t, kept)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(walFiles(t, dir)[0].path, testSegmentBytes); err != nil { // recorded without the empty rest
		t.Fatal(err)
	}
	n := start(t, Config{Dir: dir, Transport: deaf{}}).lead()
	n.wantSnapshot("10")
	n.wantNumbers(10, 20)
	want := &Members{Cluster: "kept-1", List: []Member{
		{ID: 1, Address: "a:1", Directory: "first", Voter: true}, {ID: 3, Address: "c:33", Directory: "third"},
	}, Removed: []uint64{2}}
	if got := n.Members(); !got.Equal(want) {
		t.Errorf("members = %+v, want %+v", got, want)
	}
}

// deaf is a network without other members.
type deaf struct{ Transport }

func (deaf) Send([]*raftpb.Message) {}
func (deaf) SetMembers(Members)     {}

// recordFormat writes the directory.
func recordFormat(t *testing.T, kept string) {
	t.Helper()
	dir := t.TempDir()
	n := start(t, Config{Dir: dir, Cluster: "kept-1", Directory: "first", Address: "a:1", Transport: deaf{}}).lead()
	n.proposeNumbers(0, 10, 20)
	n.untilEntries(10)
	if _, err := n.AddMember(t.Context(), Member{Address: "b:2", Directory: "second"}); err != nil {
		t.Fatal(err)
	}
	if err := n.saveCount(); err != nil {
		t.Fatal(err)
	}
	added, err := n.AddMember(t.Context(), Member{Address: "c:3", Directory: "third"})
	if err != nil {
		t.Fatal(err)
	}
	added.Address = "c:33"
	if err := errors.Join(n.UpdateMember(t.Context(), added), n.RemoveMember(t.Context(), 2, false)); err != nil {
		t.Fatal(err)
	}
	n.proposeNumbers(10, 20, 20)
	n.untilEntries(20)
	n.stop()
	seg := walFiles(t, dir)[0].path
	all := records(t, seg)
	if err := os.Truncate(seg, all[len(all)-1].end); err != nil { // the rest is room for more
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(kept), os.Remove(filepath.Join(dir, "LOCK")), os.CopyFS(kept, os.DirFS(dir))); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"wal/0.tmp", "wal/1.tmp"} {
		if err := os.RemoveAll(filepath.Join(kept, f)); err != nil {
			t.Fatal(err)
		}
	}
}
