package bridgefour

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
)

// source is a dataset that reads the splits of the input.
type source[T any] struct {
	err error
	// run reads a split.
	run func(x *execution, take func(T) error) error
}

func (s source[T]) data() data[T] {
	return data[T]{from: node{name: "map"}, err: s.err, link: func(x *execution, take func(T) error) func() error {
		return func() error { return s.run(x, take) }
	}}
}

// Lines are the lines of the input, without their ends. Of a list (--lines, --range), they are the items.
func Lines() Dataset[[]byte] {
	return source[[]byte]{run: func(x *execution, take func([]byte) error) error {
		records := x.task.Records()
		for records.Scan() {
			if err := take(records.Bytes()); err != nil {
				return err
			}
		}
		return records.Err()
	}}
}

// Splits calls the function of a [Map] once for each split, which it can read itself: see [Task.Read] and [Task.Records]. A job without an input
// has one.
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

// CSV are the rows of the input as a struct: the first column is its first field, and so on. The fields are strings, numbers and booleans. A row
// with fewer columns, or with one that is not valid, is bad input; more columns are left out. Submit such jobs with --records csv, which keeps rows
// together that contain line ends, and with --header 1 if the files have one.
func CSV[T any]() Dataset[T] {
	columns, err := csvColumns(reflect.TypeFor[T]())
	return source[T]{err: err, run: func(x *execution, take func(T) error) error {
		r := csv.NewReader(&x.task)
		r.ReuseRecord, r.FieldsPerRecord = true, -1
		var v T
		row := reflect.ValueOf(&v).Elem()
		fields := make([]reflect.Value, len(columns))
		for i := range fields {
			fields[i] = row.Field(i)
		}
		for {
			at := x.task.Offset()
			texts, err := r.Read()
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case x.task.readErr != nil:
				return x.task.readErr
			case err == nil && len(texts) < len(columns):
				err = fmt.Errorf("%d columns; want %d", len(texts), len(columns))
			}
			for i := 0; err == nil && i < len(columns); i++ {
				if err = columns[i](fields[i], texts[i]); err != nil {
					err = fmt.Errorf("column %d (%s): %w", i+1, row.Type().Field(i).Name, err)
				}
			}
			if err != nil {
				line, _ := r.FieldPos(0)
				return BadInput(fmt.Errorf("%s: row at line %d of the split, before byte %d: %w", x.task.Input(), line, at, err))
			}
			if err := take(v); err != nil {
				return err
			}
		}
	}}
}

// csvColumns are what sets the fields of a struct.
func csvColumns(t reflect.Type) (columns []func(field reflect.Value, text string) error, err error) {
	if t.Kind() != reflect.Struct || t.NumField() == 0 {
		return nil, fmt.Errorf("CSV rows as %v: want a struct", t)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		set := setterOf(f.Type)
		if set == nil || !f.IsExported() {
			return nil, fmt.Errorf("field %s of %v: CSV columns are exported strings, numbers and booleans", f.Name, t)
		}
		columns = append(columns, set)
	}
	return columns, nil
}

// setterOf returns what parses a text into a field of a type; nil if nothing does.
func setterOf(t reflect.Type) func(field reflect.Value, text string) error {
	bits := func() int { return t.Bits() }
	switch t.Kind() {
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
