package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
)

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// forEachDamage calls f with the file cut at each length and with each byte flipped, and puts it right again.
func forEachDamage(t *testing.T, path string, f func(what string)) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1 << (i % 8)
		writeFile(t, path, bad)
		f(fmt.Sprintf("byte %d flipped", i))
		writeFile(t, path, good[:i])
		f(fmt.Sprintf("cut to %d bytes", i))
	}
	writeFile(t, path, append(append([]byte(nil), good...), 0))
	f("a byte too many")
	writeFile(t, path, good)
}

func writeFile(tb testing.TB, path string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// place is where a record lies in a file of the log.
type place struct {
	kind       int64
	start, end int64
}

func records(tb testing.TB, path string) []place {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	dec, rec := wal.NewDecoder(fileutil.NewFileReader(f)), &walpb.Record{}
	var places []place
	for {
		start := dec.LastOffset()
		if err := dec.Decode(rec); errors.Is(err, io.EOF) {
			return places
		} else if err != nil {
			tb.Fatalf("%s at %d: %v", path, start, err)
		}
		if rec.GetType() == wal.CrcType {
			dec.UpdateCRC(rec.GetCrc())
		}
		places = append(places, place{kind: rec.GetType(), start: start, end: dec.LastOffset()})
	}
}

// lastEntry is the last entry record of the log: what was being written when the power failed.
func lastEntry(tb testing.TB, path string) place {
	tb.Helper()
	all := records(tb, path)
	for _, p := range slices.Backward(all) {
		if p.kind == wal.EntryType {
			return p
		}
	}
	tb.Fatalf("no entry in %s", path)
	return place{}
}

// unacknowledgedTail makes a log of entries 0 to 9 plus one that was written but never acknowledged, as a power failure would
// find it, and gives its file, and that entry's place in it.
func unacknowledgedTail(t *testing.T, dir string, size int) (string, place) {
	t.Helper()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 10, 100)
	n.untilEntries(10)
	n.stop()
	n = start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(10, 11, size)
	n.untilEntries(11)
	n.stop()
	path := walFiles(t, dir)[0].path
	last := lastEntry(t, path)
	// What came behind it, its commit index, was not written yet.
	data := readFile(t, path)
	clear(data[last.end:])
	writeFile(t, path, data)
	return path, last
}

func TestTornTailIsCut(t *testing.T) {
	dir := t.TempDir()
	path, last := unacknowledgedTail(t, dir, 560) // over several sectors
	data := readFile(t, path)
	check := func(what string, torn []byte, from int64) {
		writeFile(t, path, torn)
		log, text := logText()
		n := start(t, Config{Dir: dir, Logger: log}).lead()
		want := 10
		if from == last.end {
			want = 11
		}
		n.wantNumbers(0, want)
		// At the record's very start nothing is torn: it is not there.
		if reported := containsAll(text.String(), "log repaired", path); reported != (from > last.start && from < last.end) {
			t.Errorf("%s: repair reported: %v\n%s", what, reported, text)
		}
		n.proposeNumbers(want, want+1, 50)
		n.untilEntries(want + 1)
		n.stop()
		if from%32 == 0 || from == last.end {
			n = start(t, Config{Dir: dir}).lead()
			n.wantNumbers(0, want+1)
			n.stop()
		}
	}
	for from := last.start; from <= last.end; from++ {
		if from%512 != 0 && from != last.start && from != last.end { // disks write whole sectors
			continue
		}
		torn := append([]byte(nil), data...) // a sector that was not written reads as zeros
		clear(torn[from:last.end])
		check(fmt.Sprintf("zeros from byte %d", from), torn, from)
	}
}

func TestDamageIsRefused(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	for i := range 20 { // one by one, so that commit indexes stand between them
		n.proposeNumbers(i, i+1, 3000)
		n.untilEntries(i + 1)
	}
	n.stop()
	path := walFiles(t, dir)[0].path
	all := records(t, path)
	good := readFile(t, path)
	refusals, opened := 0, 0
	refused := func(what string, bad []byte) {
		t.Helper()
		writeFile(t, path, bad)
		r, err := Open(Config{Dir: dir})
		if err == nil { // right only where the damage is to a bit that means nothing, such as one of the padding's
			n := run(t, r).lead()
			n.wantNumbers(0, 20)
			n.stop()
			opened++
			return
		}
		refusals++
		if !containsAll(err.Error(), path, "damaged", "restore") {
			t.Errorf("%s: error does not name the file and the way out: %v", what, err)
		}
		if got := readFile(t, path); len(got) != len(bad) {
			t.Errorf("%s: the damaged file was changed", what)
		}
	}
	for i, p := range all[:len(all)-3] {
		for _, at := range []int64{p.start + 10, (p.start + p.end) / 2, p.end - 9} {
			bad := append([]byte(nil), good...)
			bad[at] ^= 0x10
			refused(fmt.Sprintf("record %d (type %d), byte %d flipped", i, p.kind, at), bad)
		}
		if p.kind == wal.EntryType && i > 6 && i < len(all)-6 {
			for _, sector := range []int64{p.start &^ 511, (p.start + 1500) &^ 511} { // looks torn, but what it held was acknowledged
				bad := append([]byte(nil), good...)
				clear(bad[sector : sector+512])
				refused(fmt.Sprintf("record %d, sector %d zeroed", i, sector), bad)
			}
		}
	}
	if opened > refusals/5 {
		t.Errorf("%d damages refused, %d without effect", refusals, opened)
	}
	refused("emptied", nil)
	for _, p := range all[:len(all)-1] { // whole records are missing, as when a copy was broken off
		refused(fmt.Sprintf("cut off at byte %d", p.end), good[:p.end])
	}
	refused("one byte short", good[:len(good)-1])
	refused("zeroed", make([]byte, len(good)))
	writeFile(t, path, good)
	start(t, Config{Dir: dir}).lead().wantNumbers(0, 20)
}

func TestMissingFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	for i := range 15 { // several files
		n.proposeNumbers(i, i+1, 1<<20)
		n.untilEntries(i + 1)
	}
	n.stop()
	segs := walFiles(t, dir)
	if len(segs) < 4 {
		t.Fatalf("%d log files, want at least 4", len(segs))
	}
	aside := filepath.Join(t.TempDir(), "aside")
	for i, s := range segs[:len(segs)-1] {
		if err := os.Rename(s.path, aside); err != nil {
			t.Fatal(err)
		}
		if r, err := Open(Config{Dir: dir}); err == nil {
			t.Errorf("opened without log file %d", i)
			_ = r.Close()
		} else if !containsAll(err.Error(), dir, "restore") {
			t.Errorf("without log file %d: %v", i, err)
		}
		if err := os.Rename(aside, s.path); err != nil {
			t.Fatal(err)
		}
	}
	// The end of a file that is not the last: what follows shows that something is missing.
	good := readFile(t, segs[1].path)
	all := records(t, segs[1].path)
	writeFile(t, segs[1].path, good[:all[len(all)-2].end])
	if r, err := Open(Config{Dir: dir}); err == nil {
		t.Error("opened with the end of a file missing")
		_ = r.Close()
	} else if !containsAll(err.Error(), segs[1].path, "restore") {
		t.Errorf("with the end of a file missing: %v", err)
	}
	writeFile(t, segs[1].path, good)

	if err := os.Rename(filepath.Join(dir, "wal"), aside); err != nil {
		t.Fatal(err)
	}
	if r, err := Open(Config{Dir: dir}); err == nil {
		t.Error("started from empty though the log is missing")
		_ = r.Close()
	} else if !containsAll(err.Error(), dir, "missing", "restore") {
		t.Errorf("without the log: %v", err)
	}
	if err := os.Rename(aside, filepath.Join(dir, "wal")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, formatFile), []byte("bridgefour log 99\n"))
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "bridgefour log 99") {
		t.Errorf("with another format: %v", err)
	}
	writeFile(t, filepath.Join(dir, formatFile), nil) // never synced: it may come back empty
	start(t, Config{Dir: dir}).lead().wantNumbers(0, 15)
}

// TestNewerVersionsAreRefused has whole files that a later program wrote.
func TestNewerVersionsAreRefused(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 10, 100)
	n.untilEntries(10)
	if err := n.saveCount(); err != nil {
		t.Fatal(err)
	}
	n.stop()
	path := snapFiles(t, dir)[0]
	good := readFile(t, path)
	newer := append([]byte(nil), good...)
	newer[8]++
	body := len(newer) - 4
	binary.LittleEndian.PutUint32(newer[body:], crc32.Checksum(newer[:body], crc32.MakeTable(crc32.Castagnoli)))
	writeFile(t, path, newer)
	if _, err := Open(Config{Dir: dir}); err == nil || !containsAll(err.Error(), path, "its version is 3, this program reads 2", "use the program that wrote it") {
		t.Errorf("with a newer snapshot: %v", err)
	}
	writeFile(t, path, good)
	start(t, Config{Dir: dir}).lead().stop()

	for _, head := range []string{`{"version":3,"id":1,"cluster":"c"}`, `{"id":0}`, "etcd"} {
		dir := t.TempDir()
		w, err := wal.Create(walLogger(slog.New(slog.DiscardHandler)), filepath.Join(dir, walName), []byte(head))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir}); err == nil || !containsAll(err.Error(), dir, "another directory") && !containsAll(err.Error(), dir, "another data directory") {
			t.Errorf("with the head %s: %v", head, err)
		}
	}
}
