package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/api"
)

// names returns the names in a folder, sorted; none if it does not exist.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// wantNames checks the names in a folder.
func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
		if temporary := filepath.Join(dir, "_temporary"); exists(temporary) {
			t.Logf("_temporary: %s", sh(t, temporary, "find . -printf '%p %s\\n'"))
		}
	}
}

// wantOutput checks a complete output: exactly these parts, a manifest that matches them, and no other files. A nil part is not compared.
// others are further names, such as _RESULT.
func wantOutput(t *testing.T, dir string, parts [][]byte, others ...string) api.Manifest {
	t.Helper()
	want := append([]string{"_SUCCESS"}, others...)
	for i := range parts {
		want = append(want, fmt.Sprintf("part-%05d", i))
	}
	wantNames(t, dir, want...)
	m := readManifest(t, filepath.Join(dir, "_SUCCESS"))
	if len(m.Parts) != len(parts) {
		t.Fatalf("the manifest lists %d parts, want %d", len(m.Parts), len(parts))
	}
	for i, listed := range m.Parts {
		got, err := os.ReadFile(filepath.Join(dir, listed.Part))
		if err != nil {
			t.Error(err)
			continue
		}
		if parts[i] != nil && string(got) != string(parts[i]) {
			t.Errorf("%s holds %s, want %s", listed.Part, brief(got), brief(parts[i]))
		}
		lines := uint64(strings.Count(string(got), "\n"))
		if n := len(got); n > 0 && got[n-1] != '\n' {
			lines++
		}
		is := api.ManifestPart{
			Part: fmt.Sprintf("part-%05d", i), Size: uint64(len(got)), Records: lines, XXH64: fmt.Sprintf("%016x", xxhash.Sum64(got)),
		}
		listed.Input, listed.Inputs, listed.InputsMore, listed.Offset, listed.Length = "", nil, 0, 0, 0 // package commit tests them
		if !reflect.DeepEqual(listed, is) {
			t.Errorf("manifest %+v, want %+v", listed, is)
		}
	}
	return m
}

func brief(text []byte) string {
	const most = 300
	if len(text) > most {
		return fmt.Sprintf("%q… (%d bytes)", text[:most], len(text))
	}
	return fmt.Sprintf("%q", text)
}

func readManifest(t *testing.T, path string) api.Manifest {
	t.Helper()
	var m api.Manifest
	if err := json.Unmarshal([]byte(readFile(t, path)), &m); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return m
}

// ledger is a file to which tasks append a line for each attempt.
type ledger struct {
	t    *testing.T
	path string
}

// ledger creates a ledger, which is logged if the test fails.
func (l *lab) ledger(name string) ledger {
	out := ledger{l.t, l.path(name)}
	l.t.Cleanup(func() {
		if l.t.Failed() {
			l.t.Logf("%s: {task attempt worker} %v", name, out.entries())
		}
	})
	return out
}

// entry is one line of a ledger.
type entry struct{ task, attempt, worker int }

func (l ledger) entries() []entry {
	l.t.Helper()
	var list []entry
	text := readFile(l.t, l.path)
	for line := range strings.Lines(text) {
		var e entry
		if n, err := fmt.Sscanf(line, "%d %d %d", &e.task, &e.attempt, &e.worker); n != 3 || err != nil || !strings.HasSuffix(line, "\n") {
			continue // being written
		}
		list = append(list, e)
	}
	return list
}

// count returns how often each task was begun.
func (l ledger) count() map[int]int {
	l.t.Helper()
	counts := map[int]int{}
	for _, e := range l.entries() {
		counts[e.task]++
	}
	return counts
}

// wantOnce checks that each of n tasks was begun once.
func (l ledger) wantOnce(n int) {
	l.t.Helper()
	want := map[int]int{}
	for i := range n {
		want[i] = 1
	}
	if got := l.count(); !maps.Equal(got, want) {
		l.t.Errorf("begun: %v, want each of %d tasks once", got, n)
	}
}

// book cuts the book of the project into n files of whole lines, in a folder, and returns their paths. Each is shorter than the one
// before: longer tasks run first, so tasks begin in the order of their numbers.
func book(t *testing.T, dir string, n int) []string {
	t.Helper()
	const source = "../../testdata/book/opticks.txt"
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	shorter := len(text) / (4 * n * n) // from file to file
	last := 0
	for i := range n {
		size := len(text)/n + (n/2-i)*shorter
		if i > 0 {
			size = min(size, last-1) // what that leaves over is left out
		}
		size = bytes.LastIndexByte(text[:min(size, len(text))], '\n') + 1
		path := filepath.Join(dir, "chapter-"+strconv.Itoa(100+i))
		write(t, path, string(text[:size]))
		paths, text, last = append(paths, path), text[size:], size
	}
	return paths
}

// each runs a shell command of the oracle for each file, which is $1, and returns the outputs.
func each(t *testing.T, paths []string, script string) [][]byte {
	t.Helper()
	var parts [][]byte
	for _, path := range paths {
		parts = append(parts, sh(t, "/", script, path))
	}
	return parts
}

// The oracles of wordcount, of files, and of upperCase, of a file or of standard input.
const (
	resultOf     = `cat "$@" | tr -s ' \t\n\v\f\r' '\n' | grep -v '^$' | sort | uniq -c | sort -k1,1nr -k2 | sed 's/^ *\([0-9]*\) \(.*\)$/\2\t\1/'`
	upperCaseOf  = `tr a-z A-Z < "$1"`
	upperCaseAll = `tr a-z A-Z`
)
