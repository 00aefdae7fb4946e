package bridgefour_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
)

// TestPackedSources: each of the files that share a task begins with its own name and header, and no record spans two of them.
func TestPackedSources(t *testing.T) {
	type row struct{ B string }
	in := func(t *b4.Task, text string, emit b4.Emit[string, string]) { emit(t.Input(), text) }
	for name, test := range map[string]struct {
		output  func() b4.Output
		files   []string
		records string
		header  int
		want    string
	}{
		"lines": {func() b4.Output {
			return b4.Map(b4.Lines(), func(t *b4.Task, line []byte, emit b4.Emit[string, string]) error {
				in(t, string(line), emit)
				return nil
			})
		}, []string{"1\n2", "", "3\n"}, "", 0, "input-0\t1\ninput-0\t2\ninput-2\t3\n"},
		"records": {func() b4.Output {
			return b4.Map(b4.Records(), func(t *b4.Task, r []byte, emit b4.Emit[string, string]) error { in(t, string(r), emit); return nil })
		}, []string{"aabb", "cc"}, "fixed:2", 0, "input-0\taa\ninput-0\tbb\ninput-1\tcc\n"},
		"csv": {func() b4.Output {
			return b4.Map(b4.CSV[row](), func(t *b4.Task, r row, emit b4.Emit[string, string]) error { in(t, r.B, emit); return nil })
		}, []string{"a,b\n1,2", "b,a\n3,4\n", "a,b\n"}, "csv", 1, "input-0\t2\ninput-1\t3\n"},
		"jsonl": {func() b4.Output {
			return b4.Map(b4.JSONL[row](), func(t *b4.Task, r row, emit b4.Emit[string, string]) error { in(t, r.B, emit); return nil })
		}, []string{`{"b":"1"}`, `{"b":"2"}`}, "", 0, "input-0\t1\ninput-1\t2\n"},
		"splits": {func() b4.Output {
			return b4.Map(b4.Splits(), func(t *b4.Task, _ struct{}, emit b4.Emit[string, string]) error {
				for t.Records().Scan() {
					in(t, string(t.Records().Bytes()), emit)
				}
				return nil
			})
		}, []string{"1\n2", "3"}, "", 0, "input-0\t1\ninput-0\t2\ninput-1\t3\n"},
		"splits together": {func() b4.Output {
			return b4.Map(b4.Splits(), func(t *b4.Task, _ struct{}, emit b4.Emit[string, string]) error {
				var all []string
				for more := true; more; more = t.NextInput() {
					for t.Records().Scan() {
						all = append(all, fmt.Sprintf("%s@%d", t.Records().Bytes(), t.Records().Offset()))
					}
				}
				emit("all", strings.Join(all, " "))
				return nil
			})
		}, []string{"1\n2", "", "3\n"}, "", 0, "all\t1@0 2@2 3@0\n"},
	} {
		job := b4.New("test", func(struct{}) (b4.Output, error) { return test.output(), nil })
		got, err := bridgefourtest.Run(t.Context(), job, bridgefourtest.Input{Files: test.files, Records: test.records, Header: test.header, Pack: 10})
		if err != nil || got.Text() != test.want || len(got.Parts) != 1 {
			t.Errorf("%s: %q, %v, want one part, %q", name, got.Parts, err, test.want)
		}
	}
}

// TestPackedErrors: an error of one file ends the task, also if the function ignores it and goes on.
func TestPackedErrors(t *testing.T) {
	calls := 0
	job := b4.New("test", func(struct{}) (b4.Output, error) {
		return b4.Map(b4.Splits(), func(t *b4.Task, _ struct{}, _ b4.Emit[string, string]) error {
			calls++
			for t.Records().Scan() {
			}
			if t.Records().Err() != nil && t.NextInput() {
				return errors.New("there is a next file after an error")
			}
			return nil
		}), nil
	})
	_, err := bridgefourtest.Run(t.Context(), job, bridgefourtest.Input{
		Files: []string{"1\n", "a long line\n", "2\n"}, Settings: b4.Settings{b4.SettingRecordMax: "4"}, Pack: 3,
	})
	if !b4.IsBadInput(err) || !strings.Contains(err.Error(), "input-1: record at byte 0 exceeds 4 bytes") || calls != 2 {
		t.Errorf("Run() = %v after %d calls, want the long line of the second file", err, calls)
	}
}
