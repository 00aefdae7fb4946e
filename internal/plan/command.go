package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/internal/placeholder"
)

// Command is a command as a worker runs it.
type Command struct {
	Argv         []string
	Placeholders placeholder.Mode
	Placeholder  string // the only one; empty: the default
	Shell        bool   // the last argument is a command line, in which values are quoted
}

// Compile compiles the command for items with these columns; nil: not a list.
func (c *Command) Compile(columns []string) *placeholder.Command {
	return placeholder.Compile(c.Argv, placeholder.Options{Mode: c.Placeholders, Only: c.Placeholder, Columns: columns, Shell: c.Shell})
}

// command validates the command and its placeholders.
func (p *planner) command() {
	program := &p.req.Program
	if len(program.Command) == 0 && program.Shell == "" {
		if program.Placeholder != "" || program.NoPlaceholders {
			p.fail("program", "placeholders are those of a command")
		}
		return
	}
	c := &p.result.Command
	if c.Argv, c.Placeholders = program.Command, placeholder.Braces; program.Shell != "" {
		c.Argv, c.Shell = []string{"sh", "-c", program.Shell}, true
	}
	switch {
	case program.NoPlaceholders && program.Placeholder != "":
		p.fail("program.placeholder", "give a placeholder or none, not both")
	case program.NoPlaceholders:
		c.Placeholders = placeholder.Off
	case program.Placeholder != "":
		c.Placeholders = placeholder.Only
		if program.Placeholder != placeholder.Default {
			c.Placeholder = program.Placeholder
		}
	}
	columns := p.columns()
	p.compiled = c.Compile(columns)
	p.unknown(columns)
	if c.Shell && p.compiled.InQuotes() {
		p.fail("program.shell", "a placeholder is in quotes, which end at those of its value: remove the quotes around it, because every value is quoted")
	}
	p.code()
	if c.Placeholders == placeholder.Braces && p.compiled.Plain(c.Argv) {
		c.Placeholders = placeholder.Only // as before there were others
	}
}

// languages are programs whose arguments may be code or patterns, in which braces around a word are none of ours.
var languages = []string{ //nolint:gochecknoglobals // a constant
	"awk", "gawk", "mawk", "nawk", "sed", "gsed", "perl", "python", "python2", "python3", "ruby", "node", "deno", "php", "lua", "jq", "yq",
	"grep", "egrep", "rg", "find", "Rscript", "julia", "tclsh",
}

// unknown refuses what looks like a column that does not exist. In the code of other languages {word} is not unusual, so it is text there
// unless the columns of the job have names.
func (p *planner) unknown(columns []string) {
	argv := p.req.Program.Command
	named := slices.ContainsFunc(columns, func(name string) bool { return name != "" })
	code := placeholder.ShellCode(argv) >= 0 || slices.ContainsFunc(argv, func(arg string) bool { return slices.Contains(languages, path.Base(arg)) })
	if !p.hasInput() || code && !named {
		return
	}
	there := placeholders(columns) + " {%}"
	for _, u := range p.compiled.Unknown {
		field := fmt.Sprintf("program.command[%d]", u.Arg)
		if p.req.Program.Shell != "" {
			field = "program.shell"
		}
		p.fail(field, "%s is not a placeholder of this job; there are %s. The text %s is written {%s}; -I STR (placeholder) makes STR the only placeholder, "+
			"and --no-placeholders (no_placeholders) turns them off", u.Text, there, u.Text, u.Text)
	}
}

// code warns of a path that takes the place of the standard input inside of code, and prepares to warn of values that a shell takes apart.
func (p *planner) code() {
	argv := p.result.Command.Argv
	shell := placeholder.ShellCode(argv)
	for i, arg := range argv {
		if len(p.req.Inputs) > 0 && i != shell && strings.ContainsAny(arg, " \t\n;(=") && p.compiled.Takes(i) && !strings.HasPrefix(arg, "-") {
			p.warn("{} in argument %d, %q, is the path of the input, and standard input is empty: write {{}} if it is text, or use --no-placeholders", i, clip(arg))
		}
	}
	if shell >= 0 && !p.result.Command.Shell && p.compiled.Takes(shell) {
		p.splice = true
	}
}

func clip(s string) string {
	const clipMax = 60
	if len(s) > clipMax {
		return strings.ToValidUTF8(s[:clipMax], "") + "…"
	}
	return s
}

// warnSplice warns if a shell runs a value as code.
func (p *planner) warnSplice(value string) {
	if p.splice && placeholder.IsSpecial(value) {
		p.splice = false // once
		p.warn("a value is put into the code of a shell as it is, such as %q, which the shell takes apart: use --shell 'CODE', where values are quoted, "+
			"or sh -c 'CODE with \"$1\"' sh {}", clip(value))
	}
}

// hasInput reports whether the tasks have files or items.
func (p *planner) hasInput() bool { return len(p.req.Inputs) > 0 || p.columns() != nil }

// columns returns the columns of the items; nil: not a list.
func (p *planner) columns() (columns []string) {
	switch {
	case p.req.Lines != nil && len(p.req.Lines.Columns) > 0:
		columns = append(columns, p.req.Lines.Columns...)
	case p.req.Lines != nil, p.req.Range != nil:
		columns = append(columns, "")
	}
	for i := range p.req.Each {
		columns = append(columns, p.req.Each[i].Name)
	}
	return columns
}
