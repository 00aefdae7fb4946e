// Package placeholder compiles the arguments of a command once per job, and fills in the values of each task.
//
// A placeholder is, in braces, nothing (all columns of the item; the path of an input file), the number of a column from 1, or its name. A suffix
// takes a part of a path, as in GNU parallel: "." without the extension, "/" the base name, "//" the folder, "/." both. {#} is the number of
// the task from 1, {%} that of the slot. An argument that is nothing but a placeholder of several values becomes one argument for each; within
// an argument they are separated by blanks.
//
// {{name}} is the text {name}. An argument that has double braces around anything else too, as a template {{range .}}…{{end}}, keeps all of
// its double braces. ${name} is left to the shell. All other braces are text.
package placeholder

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Default is the placeholder of commands without a Mode.
const Default = "{}"

// Mode is which placeholders a command has. The numbers are part of the log and the wire.
type Mode uint8

// The modes.
const (
	Only   Mode = iota // one string; the only mode before feature level 2
	Braces             // all of them
	Off                // none
	modes
)

// Valid reports whether m is known.
func (m Mode) Valid() bool { return m < modes }

// Options are what the placeholders of a job depend on.
type Options struct {
	Mode    Mode
	Only    string   // the placeholder of mode Only; defaults to Default
	Columns []string // names of the columns of a list; empty names have a number alone. Nil: not a list
	Shell   bool     // the last argument is a command line for a shell, in which values are quoted
}

// Command is a compiled command. It is immutable.
type Command struct {
	args    []argument
	columns int
	shell   bool
	// Unknown are what looks like placeholders, and is text.
	Unknown []Unknown
}

// Unknown is the name of a column that does not exist, or its number, in braces.
type Unknown struct {
	Arg  int
	Text string // with the braces
}

// Values are what the placeholders of one task stand for.
type Values struct {
	Items  []string // the columns of its items, one item after the other
	Number uint64   // of the task, from 1
	Slot   uint64   // from 1
}

// Text is what a task's items are shown as: a line for each, with tabs between its columns.
func Text(values [][]byte, columns int) []byte {
	var b []byte
	for i, v := range values {
		if i > 0 && i%max(columns, 1) == 0 {
			b = append(b, '\n')
		} else if i > 0 {
			b = append(b, '\t')
		}
		b = append(b, v...)
	}
	return b
}

type argument []piece

// piece is a text or a placeholder.
type piece struct {
	text   string
	kind   kind
	column int                 // of columnOf
	part   func(string) string // of the path; nil: all
}

type kind uint8

const (
	text kind = iota
	allColumns
	columnOf
	taskNumber
	slotNumber
)

func (p *piece) isItem() bool { return p.kind == allColumns || p.kind == columnOf }

func (p *piece) isWhole() bool { return p.isItem() && p.part == nil }

// Compile compiles a command.
func Compile(argv []string, o Options) *Command {
	if o.Only == "" {
		o.Only = Default
	}
	c := &Command{columns: max(1, len(o.Columns)), shell: o.Shell}
	for i, arg := range argv {
		var pieces argument
		switch o.Mode {
		case Only:
			pieces = compileOnly(arg, o.Only)
		case Braces:
			p := parser{arg: arg, columns: o.Columns}
			p.parse()
			for _, text := range p.unknown {
				c.Unknown = append(c.Unknown, Unknown{Arg: i, Text: text})
			}
			pieces = p.pieces
		case Off, modes:
			pieces = argument{{text: arg}}
		}
		c.args = append(c.args, pieces)
	}
	return c
}

func compileOnly(arg, only string) (pieces argument) {
	for {
		before, after, found := strings.Cut(arg, only)
		if before != "" || !found {
			pieces = append(pieces, piece{text: before})
		}
		if !found {
			return pieces
		}
		pieces = append(pieces, piece{kind: allColumns})
		if arg = after; arg == "" {
			return pieces
		}
	}
}

// parser finds the placeholders of an argument.
type parser struct {
	arg     string
	columns []string
	pieces  argument
	unknown []string
}

func (p *parser) parse() {
	escapes := !isTemplate(p.arg)
	literal := 0 // where the text begins that is not in pieces yet
	for at := 0; at < len(p.arg); {
		if p.arg[at] != '{' {
			at++
			continue
		}
		if inner, ok := inside(p.arg[at:], "{{", "}}"); ok {
			end := at + len(inner) + 4
			if _, form := p.find(inner); form && escapes {
				p.add(piece{text: p.arg[literal:at] + "{" + inner + "}"})
				literal = end
			}
			at = end
			continue
		}
		inner, ok := inside(p.arg[at:], "{", "}")
		if !ok || inner != "" && at > 0 && p.arg[at-1] == '$' {
			at++
			continue
		}
		end := at + len(inner) + 2
		found, form := p.find(inner)
		switch {
		case found.kind != text:
			p.add(piece{text: p.arg[literal:at]})
			p.add(found)
			literal = end
		case form && (p.columns != nil || inner[0] > '9'): // {3} may be of a regular expression
			p.unknown = append(p.unknown, p.arg[at:end])
		}
		at = end
	}
	if rest := p.arg[literal:]; rest != "" || len(p.pieces) == 0 {
		p.pieces = append(p.pieces, piece{text: rest})
	}
}

func (p *parser) add(add piece) {
	if add.kind != text || add.text != "" {
		p.pieces = append(p.pieces, add)
	}
}

// inside returns what is between opening, with which s begins, and the next closing, if there are no other braces in it.
func inside(s, opening, closing string) (inner string, ok bool) {
	if !strings.HasPrefix(s, opening) {
		return "", false
	}
	inner, _, ok = strings.Cut(s[len(opening):], closing)
	return inner, ok && !strings.ContainsAny(inner, "{}")
}

// isTemplate reports whether an argument has double braces around something that has not the form of a placeholder.
func isTemplate(arg string) bool {
	for at := range len(arg) {
		if inner, ok := inside(arg[at:], "{{", "}}"); ok {
			if _, form := new(parser).find(inner); !form {
				return true
			}
		}
	}
	return false
}

// parts are the suffixes, the longest first.
var parts = []struct { //nolint:gochecknoglobals // a constant
	suffix string
	of     func(string) string
}{
	{"//", folder},
	{"/.", func(s string) string { return withoutExtension(base(s)) }},
	{"/", base},
	{".", withoutExtension},
	{"", nil},
}

// find returns the placeholder of this name, if it exists; form reports that it looks like one in any case.
func (p *parser) find(name string) (found piece, form bool) {
	switch name {
	case "#":
		return piece{kind: taskNumber}, true
	case "%":
		return piece{kind: slotNumber}, true
	}
	for _, part := range parts {
		name, ok := strings.CutSuffix(name, part.suffix)
		if !ok {
			continue
		}
		if name == "" {
			return piece{kind: allColumns, part: part.of}, true
		}
		if i := slices.Index(p.columns, name); i >= 0 {
			return piece{kind: columnOf, column: i, part: part.of}, true
		}
		if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(p.columns) {
			return piece{kind: columnOf, column: n - 1, part: part.of}, true
		}
		form = form || isNumber(name) || isName(name)
	}
	return piece{}, form
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func base(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

func folder(s string) string {
	switch i := strings.LastIndexByte(s, '/'); i {
	case -1:
		return "."
	case 0:
		return "/"
	default:
		return s[:i]
	}
}

func withoutExtension(s string) string {
	if i := strings.LastIndexByte(s, '.'); i > strings.LastIndexByte(s, '/') {
		return s[:i]
	}
	return s
}

// Any reports whether there are placeholders.
func (c *Command) Any() bool { return c.has(func(p *piece) bool { return p.kind != text }) }

// UsesItem reports whether the item is in the arguments, or a part of it.
func (c *Command) UsesItem() bool { return c.has((*piece).isItem) }

// UsesSlot reports whether the number of the slot is in the arguments.
func (c *Command) UsesSlot() bool { return c.has(func(p *piece) bool { return p.kind == slotNumber }) }

// TakesPath reports whether the path of an input file is in the arguments, so that the command opens it itself.
func (c *Command) TakesPath() bool { return c.has((*piece).isWhole) }

// Takes reports whether the item, or the path, is in an argument.
func (c *Command) Takes(arg int) bool {
	return slices.ContainsFunc(c.args[arg], func(p piece) bool { return p.isWhole() })
}

// Plain reports whether mode Only with the default placeholder gives the same arguments. argv is what was compiled, with one column at most.
func (c *Command) Plain(argv []string) bool {
	return !c.shell && slices.EqualFunc(c.args, argv, func(a argument, arg string) bool {
		plain := compileOnly(arg, Default)
		return slices.EqualFunc(a, plain, func(p, q piece) bool { return p.kind == q.kind && p.text == q.text && p.part == nil })
	})
}

func (c *Command) has(is func(*piece) bool) bool {
	for _, arg := range c.args {
		for i := range arg {
			if is(&arg[i]) {
				return true
			}
		}
	}
	return false
}

// Program returns the first argument if it has no placeholders.
func (c *Command) Program() (string, bool) {
	if len(c.args) == 0 || len(c.args[0]) != 1 || c.args[0][0].kind != text {
		return "", false
	}
	return c.args[0][0].text, true
}

// Expand returns the arguments of a task. With appended, the items are also the last ones, or the last words of the shell's command line.
func (c *Command) Expand(v *Values, appended bool) []string {
	argv := make([]string, 0, len(c.args)+len(v.Items))
	for i, arg := range c.args {
		quoted := c.shell && i == len(c.args)-1
		if len(arg) == 1 && arg[0].isItem() && !quoted {
			argv = append(argv, c.values(&arg[0], v)...)
			continue
		}
		var b strings.Builder
		for k := range arg {
			c.write(&b, &arg[k], v, quoted)
		}
		if quoted && appended {
			b.WriteByte(' ')
			c.write(&b, &piece{kind: allColumns}, v, true)
		}
		argv = append(argv, b.String())
	}
	if appended && !c.shell {
		argv = append(argv, v.Items...)
	}
	return argv
}

func (c *Command) write(b *strings.Builder, p *piece, v *Values, quoted bool) {
	switch p.kind {
	case text:
		b.WriteString(p.text)
	case taskNumber:
		b.WriteString(strconv.FormatUint(v.Number, 10))
	case slotNumber:
		b.WriteString(strconv.FormatUint(v.Slot, 10))
	case allColumns, columnOf:
		for i, value := range c.values(p, v) {
			if i > 0 {
				b.WriteByte(' ')
			}
			if quoted {
				value = Quote(value)
			}
			b.WriteString(value)
		}
	}
}

// values are what a placeholder of the item stands for.
func (c *Command) values(p *piece, v *Values) []string {
	if p.kind == allColumns && p.part == nil {
		return v.Items
	}
	var list []string
	for i, value := range v.Items {
		if p.kind == columnOf && i%c.columns != p.column {
			continue
		}
		if p.part != nil {
			value = p.part(value)
		}
		list = append(list, value)
	}
	return list
}

// Quote quotes a value for a POSIX shell.
func Quote(s string) string {
	if q, err := syntax.Quote(s, syntax.LangPOSIX); err == nil {
		return q
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" // control characters and bytes that are not UTF-8 are themselves in quotes
}

// marker stands for a placeholder while a command line is parsed.
const marker = "b4_placeholder"

// InQuotes reports whether a placeholder of the shell's command line is in quotes, which end at those of the value.
func (c *Command) InQuotes() bool {
	var line strings.Builder
	for _, p := range c.args[len(c.args)-1] {
		if p.isItem() {
			p.text = marker
		}
		line.WriteString(p.text)
	}
	file, err := parse(line.String())
	if err != nil {
		return false // the shell reports it
	}
	quoted := false
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.SglQuoted:
			quoted = quoted || strings.Contains(n.Value, marker)
		case *syntax.DblQuoted:
			for _, part := range n.Parts {
				lit, ok := part.(*syntax.Lit)
				quoted = quoted || ok && strings.Contains(lit.Value, marker)
			}
		}
		return true
	})
	return quoted
}

func parse(line string) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(line), "")
}

// Variables returns the names of the variables that a shell's command line reads without setting them, in the order of their first use.
func Variables(line string) []string {
	file, err := parse(line)
	if err != nil {
		return nil
	}
	var read, set []string
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.ParamExp:
			if n.Param != nil && isName(n.Param.Value) && !slices.Contains(read, n.Param.Value) {
				read = append(read, n.Param.Value)
			}
		case *syntax.Assign:
			if n.Name != nil {
				set = append(set, n.Name.Value)
			}
		case *syntax.WordIter:
			set = append(set, n.Name.Value)
		case *syntax.CallExpr:
			set = append(set, assigned(n)...)
		}
		return true
	})
	return slices.DeleteFunc(read, func(name string) bool { return slices.Contains(set, name) })
}

// assigned are the variables that the builtin read sets.
func assigned(call *syntax.CallExpr) (names []string) {
	for i, word := range call.Args {
		if i == 0 && word.Lit() != "read" {
			return nil
		}
		names = append(names, word.Lit())
	}
	return names
}

var shells = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"} //nolint:gochecknoglobals // a constant

// ShellCode returns the index of the argument that a shell of the command runs, as CODE of sh -c CODE; -1: none.
func ShellCode(argv []string) int {
	for i, arg := range argv {
		if !slices.Contains(shells, filepath.Base(arg)) {
			continue
		}
		for k := i + 1; k < len(argv)-1 && strings.HasPrefix(argv[k], "-"); k++ {
			if !strings.HasPrefix(argv[k], "--") && strings.Contains(argv[k], "c") {
				return k + 1
			}
		}
	}
	return -1
}

// IsSpecial reports whether a value in a shell's command line is more than a word.
func IsSpecial(s string) bool { return strings.ContainsAny(s, " \t\n'\"\\$`;&|<>()*?[]{}~#!") }
