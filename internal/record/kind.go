package record

import (
	"bytes"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// Kind is a kind of records. Nil is Lines.
type Kind struct {
	name    string // without its argument
	size    int64  // of fixed records
	pattern *regexp.Regexp
	begins  beginning // nil: f is not searched for
	lines   bool      // every line begins a record
	header  bool      // there can be one
	bom     bool      // a byte order mark is dropped
}

// beginning decides whether a record begins with a line, which rest begins with. eof: rest is the rest of the file. It must not depend on
// how much of the file rest contains, except that it may ask for more.
type beginning func(k *Kind, rest []byte, eof bool) answer

type answer uint8

const (
	no answer = iota
	yes
	more // data is needed; never at eof
)

// Lines is the kind of files whose records are lines.
var Lines = &Kind{name: "lines", begins: everyLine, lines: true, header: true} //nolint:gochecknoglobals // a constant

// kinds are those without an argument.
var kinds = []*Kind{ //nolint:gochecknoglobals // a table
	Lines,
	{name: "fasta", begins: fastaHeader},
	{name: "fastq", begins: fastqHeader},
	{name: "csv", header: true, bom: true},
	{name: "jsonl", begins: everyLine, lines: true, header: true, bom: true},
}

// IsName reports whether name is that of a kind, without its argument: what String returns.
func IsName(name string) bool {
	return name == "fixed" || name == "start" || slices.ContainsFunc(kinds, func(k *Kind) bool { return k.name == name })
}

// Known is the list of kinds, for messages.
const Known = "lines, fixed:N, start:REGEXP, fasta, fastq, csv or jsonl"

const (
	sizeMax          = 1 << 30 // of a fixed record
	patternBytesMax  = 1000
	patternStepsMax  = 20_000   // of the compiled pattern: a match takes that much time for each byte at worst
	patternLineBytes = 64 << 10 // of a line that a pattern is matched with
)

// Parse parses the text of --records.
func Parse(text string) (*Kind, error) {
	name, argument, has := strings.Cut(text, ":")
	switch {
	case text == "":
		return Lines, nil
	case has && name == "fixed":
		n, err := strconv.ParseInt(argument, 10, 64)
		if err != nil || n < 1 || n > sizeMax {
			return nil, fmt.Errorf("records %q: want fixed:N, with a record size N of 1 to %d bytes", text, sizeMax)
		}
		return &Kind{name: name, size: n}, nil
	case has && name == "start":
		return parseStart(text, argument)
	}
	for _, k := range kinds {
		if k.name == text {
			return k, nil
		}
	}
	return nil, fmt.Errorf("unknown kind of records %q; known: %s", text, Known)
}

func parseStart(text, pattern string) (*Kind, error) {
	if pattern == "" || len(pattern) > patternBytesMax {
		return nil, fmt.Errorf("records %.50q: want start:REGEXP, with a pattern of 1 to %d bytes", text, patternBytesMax)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("records %q: %w", text, err)
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, fmt.Errorf("records %q: %w", text, err)
	}
	if n := len(program.Inst); n > patternStepsMax {
		return nil, fmt.Errorf("records %q: the pattern is too complex: %d steps, at most %d", text, n, patternStepsMax)
	}
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("records %q: %w", text, err)
	}
	return &Kind{name: "start", pattern: compiled, begins: matchingLine, header: true}, nil
}

// Size is the size of fixed records; 0 for other kinds.
func (k *Kind) Size() int64 { return k.size }

// IsExact reports whether the splits of a file are whole records, which need not be searched for.
func (k *Kind) IsExact() bool { return k.begins == nil }

// IsCSV reports whether files are cut by [CSVBoundaries].
func (k *Kind) IsCSV() bool { return k.name == "csv" }

// IsLines reports whether a line is a record.
func (k *Kind) IsLines() bool { return k.name == "lines" }

// DropsBOM reports whether a byte order mark at the beginning of a file is no data.
func (k *Kind) DropsBOM() bool { return k.bom }

// HasHeader reports whether the first lines of a file may be a header.
func (k *Kind) HasHeader() bool { return k.header }

func (k *Kind) String() string { return k.name }

func everyLine(*Kind, []byte, bool) answer { return yes }

func fastaHeader(_ *Kind, rest []byte, _ bool) answer {
	if rest[0] == '>' {
		return yes
	}
	return no
}

// matchingLine matches the line without its line end.
func matchingLine(k *Kind, rest []byte, eof bool) answer {
	full := len(rest) >= patternLineBytes
	rest = rest[:min(len(rest), patternLineBytes)]
	if end := bytes.IndexByte(rest, '\n'); end >= 0 {
		rest = bytes.TrimSuffix(rest[:end], []byte("\r"))
	} else if !full && !eof {
		return more
	}
	if k.pattern.Match(rest) {
		return yes
	}
	return no
}

// fastqLookAhead bounds the two lines that fastqHeader looks at.
const fastqLookAhead = 64 << 20

// fastqHeader distinguishes the header of a record of four lines from a quality line, which may begin with @ and with + too. A header is
// followed by a sequence, which begins with neither, and then by a line that begins with +. A quality line that begins with @ is followed
// by a header, which begins with @, or by the end of the file.
func fastqHeader(_ *Kind, rest []byte, eof bool) answer {
	if rest[0] != '@' {
		return no
	}
	undecided := more
	if eof || len(rest) >= fastqLookAhead {
		undecided, rest = no, rest[:min(len(rest), fastqLookAhead)]
	}
	for _, first := range []byte("@+") { // not of the second line; of the third line
		end := bytes.IndexByte(rest, '\n')
		if end < 0 || end+1 == len(rest) {
			return undecided
		}
		rest = rest[end+1:]
		if (rest[0] == first) != (first == '+') {
			return no
		}
	}
	return yes
}
