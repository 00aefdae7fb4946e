package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/cli"
)

func TestPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		if err := run([]string{dir}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bash-completion/completions/bridgefour", "zsh/site-functions/_bridgefour", "fish/vendor_completions.d/bridgefour.fish"} {
		same(t, dirs, name)
	}
	if out, err := exec.CommandContext(t.Context(), "bash", "-n", filepath.Join(dirs[0], "bash-completion/completions/bridgefour")).CombinedOutput(); err != nil {
		t.Errorf("bash -n: %v, %s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dirs[0], "man/man1/*.1"))
	if err != nil {
		t.Fatal(err)
	}
	if want := available(cli.Command()); len(pages) != want {
		t.Errorf("%d pages, want one for each of %d commands", len(pages), want)
	}
	for _, page := range pages {
		if text := same(t, dirs, filepath.Join("man/man1", filepath.Base(page))); !bytes.Contains(text, []byte("Nov 2023")) {
			t.Errorf("%s does not have the date of SOURCE_DATE_EPOCH", page)
		}
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("there is no man on this machine")
	}
	cmd := exec.CommandContext(t.Context(), man, append([]string{"--warnings=w", "-E", "UTF-8", "-Tutf8", "-Z", "-l"}, pages...)...)
	var warnings bytes.Buffer
	cmd.Stderr = &warnings
	if err := cmd.Run(); err != nil || warnings.Len() > 0 {
		t.Errorf("man -l: %v, %s", err, warnings.Bytes())
	}
}

// same returns a file that must be the same in all folders.
func same(t *testing.T, dirs []string, name string) []byte {
	t.Helper()
	var first []byte
	for i, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = text
		} else if !bytes.Equal(first, text) {
			t.Errorf("%s is not the same in two builds", name)
		}
	}
	return first
}

// available counts a command and its subcommands.
func available(c *cobra.Command) int {
	n := 1
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			n += available(sub)
		}
	}
	return n
}
