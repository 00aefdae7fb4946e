package replica

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTrimKeepsTheLogAndFreesTheRest(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(1, 101, 1000)
	if err := Trim(dir); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("Trim() of a log in use = %v, want an error that says so", err)
	}
	n.stop()
	// What a process that is killed leaves.
	left := filepath.Join(dir, walName, "1"+tmpExt)
	writeFile(t, left, make([]byte, testSegmentBytes))
	files := walFiles(t, dir)
	newest := files[len(files)-1].path
	before := readFile(t, newest)
	if taken := bytesTaken(t, newest); taken < testSegmentBytes {
		t.Fatalf("before: %d bytes are taken, want the %d of a preallocated file", taken, testSegmentBytes)
	}
	for range 2 {
		if err := Trim(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("Stat(%s) = %v, want that it is removed", left, err)
	}
	if taken := bytesTaken(t, newest); taken > 200<<10 {
		t.Errorf("after: %d bytes are taken, want about the 100 KB of the entries", taken)
	}
	if !bytes.Equal(readFile(t, newest), before) {
		t.Error("the content has changed")
	}
	n = start(t, Config{Dir: dir}).lead()
	n.wantNumbers(1, 101)
	n.proposeNumbers(101, 121, 200_000) // beyond the file
	n.wantNumbers(1, 121)
	n.stop()
	n = start(t, Config{Dir: dir}).lead()
	n.wantNumbers(1, 121)
}

func TestTrimWithoutALog(t *testing.T) {
	dir := t.TempDir()
	if err := Trim(dir); err != nil {
		t.Errorf("Trim() of an empty folder = %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("ReadDir() = %v, %v, want nothing", left, err)
	}
}

func bytesTaken(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	const blockBytes = 512
	return st.Blocks * blockBytes
}
