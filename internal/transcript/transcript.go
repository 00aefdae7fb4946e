// Package transcript runs golden tests: files of commands and expected answers. `go test -run Transcripts -update` rewrites the
// answers.
//
// A file consists of blocks, separated by empty lines. A block is commands, one per line, a line "----", and the answer. Lines that
// begin with #, and blocks without "----", are comments.
package transcript

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the answers of the transcripts in testdata") //nolint:gochecknoglobals // a flag of go test

// Run runs each *.txt in dir as a subtest. begin starts a transcript and returns the function that answers a block of commands, each
// split into words; an answer ends with a newline, or is empty.
func Run(t *testing.T, dir string, begin func(t *testing.T) (answer func(commands [][]string) string)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := Play(string(text), begin(t))
			if got == string(text) {
				return
			}
			if !*update {
				t.Errorf("%s: the answers differ; if they are right, run go test -run Transcripts -update\n%s", file, Difference(string(text), got))
				return
			}
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Play returns a transcript's text with the current answers.
func Play(text string, answer func([][]string) string) string {
	var b strings.Builder
	for block := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		head, _, ends := strings.Cut(block, "\n----")
		b.WriteString(head + "\n")
		if ends {
			b.WriteString("----\n" + answer(commands(head)))
		}
		b.WriteString("\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func commands(head string) (list [][]string) {
	for line := range strings.SplitSeq(head, "\n") {
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(line, "#") {
			list = append(list, words)
		}
	}
	return list
}

// Options splits a command's words into plain ones and settings.
func Options(words []string) (list []string, set map[string]string) {
	set = map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			set[k] = v
		} else {
			list = append(list, w)
		}
	}
	return list, set
}

// Difference shows the first line that differs.
func Difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			at := func(list []string) string {
				return strings.Join(list[min(i, len(list)):min(i+4, len(list))], "\n      ")
			}
			return fmt.Sprintf("line %d\nwant: %s\ngot:  %s", i+1, at(w), at(g))
		}
	}
	return ""
}
