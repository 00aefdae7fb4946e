// Command manpages writes a man page for each command and completions for shells into a folder that is laid out as /usr/local/share:
//
//	go run ./scripts/manpages bin/share
//
// The date of the pages is that of SOURCE_DATE_EPOCH, so that a build can be repeated.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"github.com/bridgefour/bridgefour/internal/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "manpages:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("want one folder")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	root, date := cli.Command(), time.Unix(seconds, 0).UTC()
	root.DisableAutoGenTag = true
	return errors.Join(
		into(args[0], "bash-completion/completions/bridgefour", func(path string) error { return root.GenBashCompletionFileV2(path, true) }),
		into(args[0], "zsh/site-functions/_bridgefour", root.GenZshCompletionFile),
		into(args[0], "fish/vendor_completions.d/bridgefour.fish", func(path string) error { return root.GenFishCompletionFile(path, true) }),
		into(args[0], "man/man1/bridgefour.1", func(path string) error {
			escapeAll(root)
			return doc.GenManTreeFromOpts(root, doc.GenManTreeOptions{
				Path: filepath.Dir(path), CommandSeparator: "-",
				Header: &doc.GenManHeader{Section: "1", Date: &date, Source: "Bridge Four", Manual: "Bridge Four"},
			})
		}),
	)
}

// into makes the folder of a file.
func into(folder, name string, write func(path string) error) error {
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return write(path)
}

// escapeAll keeps package doc, which takes texts for Markdown, from seeing any in those of a command and its subcommands. What is indented
// in a text, such as a table, stays as it is.
func escapeAll(cmd *cobra.Command) {
	cmd.Short, cmd.Use = escape(cmd.Short), escape(cmd.Use)
	var long strings.Builder
	for line := range strings.Lines(cmd.Long) {
		if strings.HasPrefix(line, "  ") {
			long.WriteString("  " + line)
		} else {
			long.WriteString(escape(line))
		}
	}
	cmd.Long = long.String()
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		f.Usage = escape(usage)
	})
	for _, sub := range cmd.Commands() {
		escapeAll(sub)
	}
}

func escape(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", `\<`, "`", "\\`", "[", `\[`, "]", `\]`, "#", `\#`).Replace(text)
}
