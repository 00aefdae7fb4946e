package cli

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/format"
)

// itemFlags are the flags of lists and of their placeholders.
type itemFlags struct {
	lines string
	null  bool
	csv   string
	sep   string
	rng   string
	each  []string
}

func (f *itemFlags) add(fs *pflag.FlagSet, asked *api.JobRequest) {
	fs.StringVar(&f.lines, "lines", "", "instead of --input: one task per line of `file`, which may be compressed; - is standard input")
	fs.BoolVarP(&f.null, "null", "0", false, "the items of --lines end in a zero byte")
	fs.StringVar(&f.csv, "csv", "", "instead of --input: one task per row of a CSV `file`, whose columns are {name} or {2}; - is standard input")
	fs.StringVar(&f.sep, "sep", ",", "`character` between the columns of --csv, such as ; or \\t")
	fs.StringVar(&f.rng, "range", "", "instead of --input: one task per number from `A-B[:STEP][,…]`; zeros before a number are kept")
	fs.StringArrayVar(&f.each, "each", nil, "`NAME=a,b,c` or NAME=1-9: one task per value, {NAME}; several make one task per combination; repeatable")
	fs.BoolVar(&asked.Shuffle, "shuf", false, "run the items of a list in a random order")
	fs.Uint64Var(&asked.Limit, "limit", 0, "at most `N` items of a list (after --shuf: a random sample)")
	fs.Uint64Var(&asked.Batch, "batch", 0, "`N` items of a list per task: {} becomes N arguments; a command without it reads them, one a line")
	fs.StringVar(&asked.Program.Shell, "shell", "", "instead of a program: run `command line` by sh -c, with every value quoted")
	fs.StringVarP(&asked.Program.Placeholder, "placeholder", "I", "", "`string` that is the only placeholder, instead of {} and the others")
	fs.BoolVar(&asked.Program.NoPlaceholders, "no-placeholders", false, "nothing in the command is a placeholder; an item of a list is its last argument")
}

// sources are the words that begin a list of values among the arguments, as in GNU parallel.
var sources = []string{":::", ":::+", "::::", "::::+"} //nolint:gochecknoglobals // a constant

// cutSources separates the arguments from the lists behind them.
func cutSources(args []string) (rest, lists []string) {
	if i := slices.IndexFunc(args, func(arg string) bool { return slices.Contains(sources, arg) }); i >= 0 {
		return args[:i], args[i:]
	}
	return args, nil
}

// requestItems sets the lists of the request; given is the flag of its first one, if any.
func (a *app) requestItems(cmd *cobra.Command, f *jobFlags, given string, lists []string, r *api.JobRequest) (err error) {
	for _, name := range []string{"limit", "batch"} {
		if v := cmd.Flags().Lookup(name); v.Changed && v.Value.String() == "0" {
			return usagef(cmd, "--%s is 0: want at least 1", name)
		}
	}
	if f.null && given != "--lines" {
		return usagef(cmd, "--null is for the items of --lines")
	}
	if a.typed["sep"] && given != "--csv" {
		return usagef(cmd, "--sep is for the columns of --csv")
	}
	switch given {
	case "--lines":
		r.Lines = &api.Lines{Null: f.null}
		r.Lines.Raw, err = a.readLines(cmd, "--lines", f.lines, func(text io.Reader) (io.Reader, error) { return text, nil })
	case "--csv":
		r.Lines, err = a.readTable(cmd, &f.itemFlags)
	case "--range":
		var ranges []api.Range
		if ranges, err = parseRanges(f.rng); err != nil {
			return usagef(cmd, "--range %v", err)
		}
		if len(ranges) == 1 {
			r.Range = &ranges[0]
		} else {
			r.Each = append(r.Each, api.List{Ranges: ranges})
		}
	}
	if err != nil {
		return err
	}
	for _, each := range f.each {
		list, err := parseEach(each)
		if err != nil {
			return usagef(cmd, "--each %v", err)
		}
		r.Each = append(r.Each, list)
	}
	if err := a.requestSources(cmd, lists, r); err != nil {
		return err
	}
	if r.Lines == nil && r.Range == nil && len(r.Each) == 0 && (r.Shuffle || r.Limit > 0 || r.Batch > 0) && f.file == "" {
		return usagef(cmd, "--shuf, --limit and --batch are for lists: --lines, --csv, --range, --each or :::")
	}
	return nil
}

// requestSources adds the lists that are among the arguments.
func (a *app) requestSources(cmd *cobra.Command, lists []string, r *api.JobRequest) error {
	for len(lists) > 0 {
		kind := lists[0]
		end := 1
		for end < len(lists) && !slices.Contains(sources, lists[end]) {
			end++
		}
		values := lists[1:end]
		lists = lists[end:]
		linked := strings.HasSuffix(kind, "+")
		first := r.Lines == nil && r.Range == nil && len(r.Each) == 0
		switch {
		case len(values) == 0:
			return usagef(cmd, "no values after %s", kind)
		case linked && first:
			return usagef(cmd, "%s goes on together with the list before it, and there is none", kind)
		case strings.HasPrefix(kind, "::::"):
			for i, name := range values {
				if err := a.requestFile(cmd, name, first && i == 0, linked, r); err != nil {
					return err
				}
			}
			continue
		}
		for _, v := range values {
			if !utf8.ValidString(v) {
				return usagef(cmd, "%q is not valid UTF-8: pass it in a file, by --lines, whose items may hold any bytes", v)
			}
		}
		r.Each = append(r.Each, api.List{Values: values, Linked: linked})
	}
	return nil
}

// requestFile adds the lines of a file. Those of the first list may be many.
func (a *app) requestFile(cmd *cobra.Command, name string, first, linked bool, r *api.JobRequest) error {
	raw, err := a.readLines(cmd, "::::", name, func(text io.Reader) (io.Reader, error) { return text, nil })
	if err != nil {
		return err
	}
	if first {
		r.Lines = &api.Lines{Raw: raw}
		return nil
	}
	if raw == nil || !utf8.Valid(raw) {
		return usagef(cmd, ":::: %s: only the first list may have more than 1 MiB, or bytes that are not UTF-8", name)
	}
	list := api.List{Linked: linked}
	for line := range bytes.Lines(raw) {
		list.Values = append(list.Values, string(bytes.TrimSuffix(line, []byte{'\n'})))
	}
	r.Each = append(r.Each, list)
	return nil
}

// readTable reads the file of --csv, whose first row has the names of its columns.
func (a *app) readTable(cmd *cobra.Command, f *itemFlags) (*api.Lines, error) {
	sep, size := utf8.DecodeRuneInString(f.sep)
	if f.sep == `\t` || f.sep == "tab" {
		sep, size = '\t', len(f.sep)
	}
	if size != len(f.sep) || sep == utf8.RuneError || sep == '"' || sep == '\r' || sep == '\n' {
		return nil, usagef(cmd, `--sep %q: want one character, such as ; or \t`, f.sep)
	}
	lines := &api.Lines{Null: true}
	var err error
	lines.Raw, err = a.readLines(cmd, "--csv", f.csv, func(text io.Reader) (io.Reader, error) {
		t := &tableReader{csv: csv.NewReader(text)}
		t.csv.Comma = sep
		header, err := t.csv.Read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("it is empty; its first row has the names of the columns")
			}
			return nil, err
		}
		header[0] = header[0][format.SkipBOM([]byte(header[0])):]
		for i, name := range header {
			name = strings.TrimSpace(name)
			if name != "" && slices.Contains(lines.Columns, name) {
				return nil, fmt.Errorf("two columns have the name %q", name)
			}
			if !utf8.ValidString(name) {
				return nil, fmt.Errorf("the name of column %d, %q, is not UTF-8", i+1, name)
			}
			lines.Columns = append(lines.Columns, name)
		}
		t.csv.ReuseRecord = true
		return t, nil
	})
	return lines, err
}

// tableReader reads the values of a table, row by row, with a zero byte behind each.
type tableReader struct {
	csv *csv.Reader
	row []byte
}

func (t *tableReader) Read(p []byte) (int, error) {
	for len(t.row) == 0 {
		fields, err := t.csv.Read()
		if errors.Is(err, csv.ErrFieldCount) {
			line, _ := t.csv.FieldPos(0)
			return 0, fmt.Errorf("line %d has %s, and the first row names %d columns", line, plural(uint64(len(fields)), "value"), t.csv.FieldsPerRecord)
		}
		if err != nil {
			return 0, err
		}
		for _, field := range fields {
			if strings.Contains(field, "\x00") {
				line, _ := t.csv.FieldPos(0)
				return 0, fmt.Errorf("line %d has a zero byte", line)
			}
			t.row = append(append(t.row, field...), 0)
		}
	}
	n := copy(p, t.row)
	t.row = t.row[n:]
	return n, nil
}

// readLines reads the file of a flag, after convert, or keeps it in a temporary file if it is long: then it is nil.
func (a *app) readLines(cmd *cobra.Command, flag, name string, convert func(io.Reader) (io.Reader, error)) ([]byte, error) {
	from := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			if path, ok := errors.AsType[*fs.PathError](err); ok {
				err = path.Err
			}
			return nil, usagef(cmd, "%s %s: %v", flag, name, err)
		}
		defer f.Close() //nolint:errcheck // only read
		from = f
	} else if a.stdinRead {
		return nil, usagef(cmd, "%s -: standard input is read already", flag)
	} else {
		a.stdinRead = true
	}
	text, err := format.NewText(from)
	if err == nil {
		text, err = convert(text)
	}
	if err != nil {
		return nil, usagef(cmd, "%s %s: %v", flag, name, err)
	}
	raw, err := io.ReadAll(io.LimitReader(text, linesInMemory))
	size := int64(len(raw))
	if err == nil && size == linesInMemory {
		if a.lines != nil {
			return nil, usagef(cmd, "%s %s: only one list may have more than %s", flag, name, bytesText(linesInMemory))
		}
		size, err = a.keepLines(io.MultiReader(bytes.NewReader(raw), io.LimitReader(text, linesBytesMax+1-size)))
		raw = nil
	}
	switch {
	case err != nil:
		return nil, usagef(cmd, "%s %s: %v", flag, name, err)
	case size > linesBytesMax:
		return nil, usagef(cmd, "%s %s holds more than %s, the most of one job; split it over several jobs, or use --input, "+
			"whose tasks read many lines each", flag, name, bytesText(linesBytesMax))
	case size == 0:
		return nil, usagef(cmd, "%s %s is empty: no tasks to run", flag, name)
	}
	return raw, nil
}

// numbersForm is a number, or a range of numbers.
var numbersForm = regexp.MustCompile(`^(-?\d+)(?:-(-?\d+)(?::(\d+))?)?$`)

// parseRanges parses A-B[:STEP][,…].
func parseRanges(s string) ([]api.Range, error) {
	var ranges []api.Range
	for part := range strings.SplitSeq(s, ",") {
		m := numbersForm.FindStringSubmatch(part)
		if m == nil || len(ranges) == 0 && m[2] == "" && !strings.Contains(s, ",") {
			return nil, fmt.Errorf("%q is not a range: want FROM-TO, as 1-1000, 001-100, 0-100:10 or 1-5,8,10-20", s)
		}
		from, err1 := strconv.ParseInt(m[1], 10, 64)
		to, err2 := strconv.ParseInt(cmp.Or(m[2], m[1]), 10, 64)
		step, err3 := strconv.ParseUint(cmp.Or(m[3], "1"), 10, 63)
		r := api.Range{From: from, To: to}
		for _, number := range m[1:3] {
			if digits := strings.TrimPrefix(number, "-"); len(digits) > 1 && digits[0] == '0' {
				r.Width = max(r.Width, uint32(min(len(number), 100))) //nolint:gosec // small
			}
		}
		switch {
		case errors.Join(err1, err2, err3) != nil:
			return nil, fmt.Errorf("%q exceeds 64 bits", part)
		case to < from:
			return nil, fmt.Errorf("%q is empty: its first number exceeds its last", part)
		case step == 0:
			return nil, fmt.Errorf("%q has steps of 0", part)
		case step > 1:
			r.Step = step
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// parseEach parses NAME=a,b,c or NAME=1-9. What is no ascending range of numbers is values.
func parseEach(s string) (api.List, error) {
	name, text, ok := strings.Cut(s, "=")
	switch {
	case !ok || name == "" || text == "":
		return api.List{}, fmt.Errorf("%q: want NAME=a,b,c or NAME=1-9", s)
	case strings.ContainsAny(name, "{}") || strings.Trim(name, "0123456789./#%") == "":
		return api.List{}, fmt.Errorf("%q: %q cannot be the name of a column: use a word", s, name)
	case !utf8.ValidString(s):
		return api.List{}, fmt.Errorf("%q is not valid UTF-8", s)
	}
	if strings.Contains(text, "-") {
		if ranges, err := parseRanges(text); err == nil {
			return api.List{Name: name, Ranges: ranges}, nil
		}
	}
	return api.List{Name: name, Values: strings.Split(text, ",")}, nil
}
