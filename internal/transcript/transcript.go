// Package transcript runs tests that are stories: files of commands and of what was answered, which are played and compared, and
// written anew with `go test -run Transcripts -update`.
package transcript

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the answers of the transcripts in testdata anew") //nolint:gochecknoglobals // a flag of go test

// Run plays each testdata/*.txt in a subtest. Play returns the file's text with the answers as they are now.
func Run(t *testing.T, play func(t *testing.T, text string) string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
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

// Difference shows the first line that is not as it was.
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
