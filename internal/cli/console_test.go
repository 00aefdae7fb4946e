package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestConsole compares what a terminal of some columns gets. TestTerminal of package e2e has a real one.
func TestConsole(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "terminal"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // a test's
	const off, on, erase = "\x1b[?7l", "\x1b[?7h\r", "\r\x1b[J"
	columns := 10
	c := &console{file: file, terminal: true, size: func() int { return columns }}
	stdout := &besideConsole{c, file}
	got := func(what, want string, do func()) {
		t.Helper()
		before, _ := os.ReadFile(file.Name())
		do()
		after, err := os.ReadFile(file.Name())
		if text := string(after[len(before):]); err != nil || text != want {
			t.Errorf("%s writes %q, want %q", what, text, want)
		}
	}
	printing := func(text string) func() { return func() { _, _ = stdout.Write([]byte(text)) } }
	got("a message without a status", "one\n", func() { c.Printf("one") })
	got("a status", off+"12345678…"+on, func() { c.Status("1234567890") })
	got("wide characters", erase+off+"世界世界…"+on, func() { c.Status("世界世界世界") })
	got("a message", erase+"two\n"+off+"世界世界…"+on, func() { c.Printf("two") })
	got("an output", erase+"out\n"+off+"世界世界…"+on, printing("out\n"))
	got("an unterminated output", erase+"ou", printing("ou"))
	got("a status behind it", "", func() { c.Status("3 done") })
	got("its end", "t\n"+off+"3 done"+on, printing("t\n"))
	got("another one", erase+"ou", printing("ou"))
	got("a message behind it", "\nthree\n"+off+"3 done"+on, func() { c.Printf("three") })
	columns = 1
	got("a terminal of one column", erase+off+"…"+on, func() { c.Status("3 done") })
	got("the end", erase, func() { c.Status("") })
	got("a message after it", "four\n", func() { c.Printf("four") })
}
