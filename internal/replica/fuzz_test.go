package replica

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// FuzzSnapshotFile opens any bytes as a snapshot: an error, or a body and members that make the same file again.
func FuzzSnapshotFile(f *testing.F) {
	m := core.Position{Index: 12, Term: 3, Members: &Members{Cluster: "c", List: []Member{{ID: 1, Voter: true}, {ID: 2}}}}
	store := snapStore{dir: f.TempDir()}
	if err := store.create(m, func(w io.Writer) error { _, err := io.WriteString(w, "state"); return err }); err != nil {
		f.Fatal(err)
	}
	good := readFile(f, store.path(m))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(snapMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		store := snapStore{dir: t.TempDir()}
		writeFile(t, store.path(m), data)
		body, err := store.open(m)
		if err != nil {
			return
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		if err := body.Close(); err != nil {
			t.Fatal(err)
		}
		again := body.at
		if err := store.create(again, func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
			t.Fatal(err)
		}
		body, err = store.open(again)
		if err != nil {
			t.Fatalf("written again: %v", err)
		}
		if second, err := io.ReadAll(body); err != nil || !bytes.Equal(second, text) {
			t.Errorf("written again: %q, %v, want %q", second, err, text)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzLogFile opens any bytes as the log: an error, or a log that can be appended to and read again.
func FuzzLogFile(f *testing.F) {
	dir := f.TempDir()
	n := start(f, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 3, 20)
	n.untilEntries(3)
	n.stop()
	seg := walFiles(f, dir)[0]
	all := records(f, seg.path)
	good := readFile(f, seg.path)[:all[len(all)-1].end]
	f.Add(good)
	f.Add(slices.Concat(good, make([]byte, 64)))
	f.Add(good[:len(good)-3])
	for _, at := range []int{0, 20, len(good) / 2, len(good) - 20} {
		bad := bytes.Clone(good)
		bad[at] ^= 0x81
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "wal"), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "wal", filepath.Base(seg.path)), data)
		r, err := Open(Config{Dir: dir})
		if err != nil {
			return
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r, err = Open(Config{Dir: dir})
		if err != nil {
			t.Fatalf("opened once, not twice: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
