package bridgefour

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/internal/record"
)

// source is a dataset that reads the splits of the input.
type source[T any] struct {
	err error
	// run reads a split.
	run func(x *execution, take func(T) error) error
}

func (s source[T]) data() data[T] {
	return data[T]{from: node{name: "map"}, err: s.err, link: func(x *execution, take func(T) error) func() error {
		return func() error { return x.task.eachInput(func() error { return s.run(x, take) }) }
	}}
}

// Lines are the lines of the input, without their ends: a line feed, or a carriage return and a line feed, as for [bufio.ScanLines]. [Task.Records] has the
// carriage returns too. Of a list (--lines, --range), they are the items, as they are.
func Lines() Dataset[[]byte] {
	return source[[]byte]{run: takeLines}
}

func takeLines(x *execution, take func([]byte) error) error {
	records, items := x.task.Records(), x.task.Item() != nil
	for records.Scan() {
		line := records.Bytes()
		if n := len(line) - 1; n >= 0 && line[n] == '\r' && !items {
			line = line[:n]
		}
		if err := take(line); err != nil {
			return err
		}
	}
	return records.Err()
}

// Records are the records of the input, of the kind that --records says: a FASTA entry, the lines from one that matches a pattern to the next, N bytes. They
// are without the line end behind them, as [Lines] are, unless they have a fixed size. Without --records, they are [Lines]. CSV rows have a source of their own: [CSV].
func Records() Dataset[[]byte] {
	return source[[]byte]{run: func(x *execution, take func([]byte) error) error {
		kind, err := record.Parse(cmp.Or(x.task.spec.Records, record.Lines.String()))
		if err != nil {
			return err
		}
		bytesMax, err := x.task.Settings().Size(SettingRecordMax, recordMaxDefault)
		switch {
		case err != nil:
			return err
		case kind.IsLines() || kind.String() == "jsonl" || x.task.Item() != nil:
			return takeLines(x, take)
		case kind.IsCSV():
			return BadInput(errors.New("a job that reads records takes no --records csv: its rows are read by bridgefour.CSV"))
		case kind.Size() > 0:
			return takeFixed(x, make([]byte, kind.Size()), take)
		}
		return takeRecords(x, kind, bytesMax, take)
	}}
}

// takeFixed reads records of the size of buf.
func takeFixed(x *execution, buf []byte, take func([]byte) error) error {
	for {
		switch _, err := io.ReadFull(&x.task, buf); {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return BadInput(fmt.Errorf("%s: the last record has less than %d bytes", x.task.Input(), len(buf)))
		case err != nil:
			return err
		}
		if err := take(buf); err != nil {
			return err
		}
	}
}

// takeRecords reads records that end where another one begins: each is a range that has its first byte alone.
func takeRecords(x *execution, kind *record.Kind, bytesMax int64, take func([]byte) error) error {
	var r record.Reader
	var buf []byte
	for r.ResetAt(kind, &x.task, nil, 0, 1); ; {
		at, ended := r.Offset(), false
		for buf = buf[:0]; !ended; {
			buf = slices.Grow(buf, scannerBufferStart)
			n, err := r.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			ended = errors.Is(err, io.EOF)
			switch {
			case x.task.readErr != nil:
				return x.task.readErr
			case err != nil && !ended:
				return BadInput(fmt.Errorf("%s: %w", x.task.Input(), err))
			case int64(len(buf)) > bytesMax:
				return BadInput(fmt.Errorf("%s: record at byte %d of the split exceeds %d bytes; raise the limit with --set %s=SIZE",
					x.task.Input(), at, bytesMax, SettingRecordMax))
			}
		}
		if len(buf) == 0 { // the split is empty
			return nil
		}
		if err := take(bytes.TrimSuffix(bytes.TrimSuffix(buf, []byte{'\n'}), []byte{'\r'})); err != nil {
			return err
		}
		if more, err := r.Next(r.Offset() + 1); err != nil || !more {
			return err
		}
	}
}

// Splits calls the function of a [Map] once for each split, which it can read itself: see [Task.Read] and [Task.Records]. A job without an input
// has one. Each of the small files that share a task is a split; [Task.NextInput] goes on to the next one in the same call.
func Splits() Dataset[struct{}] {
	return source[struct{}]{run: func(_ *execution, take func(struct{}) error) error { return take(struct{}{}) }}
}

// JSONL are the lines of the input, each a JSON value, as [json.Unmarshal] reads it. An empty line is left out; one that is not valid is bad input.
func JSONL[T any]() Dataset[T] {
	return source[T]{run: func(x *execution, take func(T) error) error {
		records := x.task.Records()
		for records.Scan() {
			line := records.Bytes()
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			var v T
			if err := json.Unmarshal(line, &v); err != nil {
				return BadInput(fmt.Errorf("%s: line at byte %d: %w", x.task.Input(), records.Offset(), err))
			}
			if err := take(v); err != nil {
				return err
			}
		}
		return records.Err()
	}}
}

// CSV are the rows of the input as a struct, whose fields are strings, numbers and booleans. With a header, a column has the name that the last line of
// the header gives it, and is that of the field with this name, or of its tag `b4:"name"`; upper case is lower case, and min_length is MinLength. The separator
// is the first of comma, semicolon, tab and vertical bar with which that line has all of these columns, unless [Separator] says which one it is. Without a header, it
// is a comma unless told otherwise, and the first column is the first field, and so on. Other columns are left out. A column that is twice in the header is bad
// input, and so is a row that lacks a column, or has one that is not valid. Submit such jobs with --records csv, which keeps rows together that contain line ends,
// and has a header unless --header 0 says that there is none.
func CSV[T any](options ...CSVOption) Dataset[T] {
	columns, err := csvColumns(reflect.TypeFor[T]())
	var o csvOptions
	for _, option := range options {
		option(&o)
	}
	if o.separator != 0 && !strings.ContainsRune(record.Separators, o.separator) && err == nil {
		err = fmt.Errorf("CSV rows with the separator %q: want a comma, semicolon, tab or vertical bar", o.separator)
	}
	return source[T]{err: err, run: func(x *execution, take func(T) error) error {
		var v T
		r := csvReader{task: &x.task, columns: columns, separator: o.separator, row: reflect.ValueOf(&v).Elem()}
		if err := r.open(); err != nil {
			return err
		}
		for {
			switch more, err := r.next(); {
			case err != nil:
				return err
			case !more:
				return nil
			}
			if err := take(v); err != nil {
				return err
			}
		}
	}}
}

// CSVOption is an option of [CSV].
type CSVOption func(o *csvOptions)

type csvOptions struct {
	separator rune // 0: not said
}

// Separator is what is between the columns of a row: ',', ';', '\t' or '|'. Defaults to the one that fits the header, and to ',' without a header.
func Separator(separator rune) CSVOption { return func(o *csvOptions) { o.separator = separator } }

// csvColumn is a field of a struct.
type csvColumn struct {
	name  string
	set   func(field reflect.Value, text string) error
	field int
}

// csvColumns are what sets the fields of a struct.
func csvColumns(t reflect.Type) (columns []csvColumn, err error) {
	if t.Kind() != reflect.Struct || t.NumField() == 0 {
		return nil, fmt.Errorf("CSV rows as %v: want a struct", t)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		set := setterOf(f.Type)
		if set == nil || !f.IsExported() {
			return nil, fmt.Errorf("field %s of %v: CSV columns are exported strings, numbers and booleans", f.Name, t)
		}
		name := f.Tag.Get("b4")
		if name == "" {
			name = underscored(f.Name)
		}
		columns = append(columns, csvColumn{name, set, i})
	}
	return columns, nil
}

// csvReader reads the rows of a split into a struct.
type csvReader struct {
	task    *Task
	columns []csvColumn
	row     reflect.Value
	fields  []reflect.Value // of columns
	places  []int           // of columns in a row
	least   int             // columns that a row must have
	rows    *csv.Reader
	begin   int64 // of the rows, in the input
	// separator is that of the job; 0: it depends on the file.
	separator rune
}

// open finds the columns in the header.
func (r *csvReader) open() error {
	header, err := r.task.Header()
	if err != nil {
		return err
	}
	separator := cmp.Or(r.separator, ',')
	if len(header) == 0 {
		for i := range r.columns {
			r.places = append(r.places, i)
		}
	} else if separator, err = r.find(header); err != nil {
		return BadInput(fmt.Errorf("%s: %w", r.task.Input(), err))
	}
	for i, place := range r.places {
		r.least = max(r.least, place+1)
		r.fields = append(r.fields, r.row.Field(r.columns[i].field))
	}
	r.rows, r.begin = csv.NewReader(r.task), r.task.Offset()
	r.rows.Comma = separator
	r.rows.ReuseRecord, r.rows.FieldsPerRecord = true, -1
	return nil
}

// find finds the separator with which the header has all columns, and their places. The error is about the one that makes most columns.
func (r *csvReader) find(header []byte) (rune, error) {
	err, most := fmt.Errorf("the header %q is not valid CSV", header), 0
	for _, separator := range record.Separators {
		if r.separator != 0 && separator != r.separator {
			continue
		}
		head := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(header, []byte("\ufeff")))) // some programs begin their files with it
		head.Comma, head.FieldsPerRecord = separator, -1
		lines, invalid := head.ReadAll()
		if invalid != nil || len(lines) == 0 {
			continue
		}
		names := lines[len(lines)-1]
		places, missing := r.placesIn(names)
		if missing == "" {
			r.places = places
			return separator, r.once(names)
		}
		if len(names) > most {
			err, most = fmt.Errorf("the header has no column %q: it has %s", missing, strings.Join(names, ", ")), len(names)
		}
	}
	return 0, err
}

// once is an error if a column is twice among the names of a header: which of them is meant cannot be known.
func (r *csvReader) once(names []string) error {
	for i, c := range r.columns {
		rest := names[r.places[i]+1:]
		if again := slices.IndexFunc(rest, func(name string) bool { return r.isColumn(c, name) }); again >= 0 {
			return fmt.Errorf("the header has the column %q twice: the columns %d and %d are %q and %q", c.name, r.places[i]+1, r.places[i]+again+2, names[r.places[i]], rest[again])
		}
	}
	return nil
}

// isColumn reports whether a name in a header is that of a column.
func (r *csvReader) isColumn(c csvColumn, name string) bool {
	name = strings.TrimSpace(name)
	return strings.EqualFold(name, c.name) || strings.EqualFold(name, r.row.Type().Field(c.field).Name)
}

// placesIn returns where the columns are among the names of a header; missing is one that is not among them.
func (r *csvReader) placesIn(names []string) (places []int, missing string) {
	for _, c := range r.columns {
		place := slices.IndexFunc(names, func(name string) bool { return r.isColumn(c, name) })
		if place < 0 {
			return nil, c.name
		}
		places = append(places, place)
	}
	return places, ""
}

// next reads the next row. It returns false at the end.
func (r *csvReader) next() (more bool, err error) {
	at := r.begin + r.rows.InputOffset()
	texts, err := r.rows.Read()
	switch {
	case errors.Is(err, io.EOF):
		return false, nil
	case r.task.readErr != nil:
		return false, r.task.readErr
	case err == nil && len(texts) < r.least:
		err = fmt.Errorf("columns separated by %q: %d; want %d", r.rows.Comma, len(texts), r.least)
	}
	for i := 0; err == nil && i < len(r.columns); i++ {
		if err = r.columns[i].set(r.fields[i], texts[r.places[i]]); err != nil {
			err = fmt.Errorf("column %d (%s): %w", r.places[i]+1, r.columns[i].name, err)
		}
	}
	if err != nil {
		if wrong, ok := errors.AsType[*csv.ParseError](err); ok {
			err = wrong.Err // without its line, which is one of the split
		}
		return false, BadInput(fmt.Errorf("%s: row at byte %d: %w", r.task.Input(), at, err))
	}
	return true, nil
}

// setterOf returns what parses a text into a field of a type; nil if nothing does.
func setterOf(t reflect.Type) func(field reflect.Value, text string) error {
	bits := func() int { return t.Bits() }
	switch t.Kind() { //nolint:exhaustive // nothing parses the others
	case reflect.String:
		return func(f reflect.Value, text string) error { f.SetString(text); return nil }
	case reflect.Bool:
		return func(f reflect.Value, text string) error {
			v, err := strconv.ParseBool(text)
			f.SetBool(v)
			return bare(err)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(f reflect.Value, text string) error {
			v, err := strconv.ParseInt(text, 10, bits())
			f.SetInt(v)
			return bare(err)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(f reflect.Value, text string) error {
			v, err := strconv.ParseUint(text, 10, bits())
			f.SetUint(v)
			return bare(err)
		}
	case reflect.Float32, reflect.Float64:
		return func(f reflect.Value, text string) error {
			v, err := strconv.ParseFloat(text, bits())
			f.SetFloat(v)
			return bare(err)
		}
	}
	return nil
}

// bare is an error of strconv without the name of its function.
func bare(err error) error {
	if e, ok := errors.AsType[*strconv.NumError](err); ok {
		return fmt.Errorf("%q: %w", e.Num, e.Err)
	}
	return err
}
