package bridgefour

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/bridgefour/bridgefour/internal/hooks"
)

func TestSettings(t *testing.T) {
	s := Settings{
		"int": "-3", "float": "1e3", "bool": "true", "duration": "1m30s", "size": "2GiB", "zero": "0", "text": "", "bad": "x y",
		"large": "9000000T", "negative": "-1",
	}
	check := func(name string, got, want any, err error, wrong string) {
		t.Helper()
		if wrong == "" && (err != nil || got != want) {
			t.Errorf("%s = %v, %v, want %v", name, got, err, want)
		}
		if wrong != "" && (err == nil || err.Error() != wrong || !IsBadInput(err) || got != want) {
			t.Errorf("%s = %v, %v, want the default %v and the bad input %s", name, got, err, want, wrong)
		}
	}
	n, err := s.Int("int", 1)
	check("Int", n, -3, err, "")
	n, err = s.Int("none", 7)
	check("Int", n, 7, err, "")
	n, err = s.Int("bad", 7)
	check("Int", n, 7, err, `invalid setting bad="x y": want an integer such as 30`)
	f, err := s.Float("float", 1)
	check("Float", f, 1000.0, err, "")
	f, err = s.Float("bad", 1)
	check("Float", f, 1.0, err, `invalid setting bad="x y": want a number such as 0.5`)
	b, err := s.Bool("bool", false)
	check("Bool", b, true, err, "")
	b, err = s.Bool("int", true)
	check("Bool", b, true, err, `invalid setting int="-3": want true or false`)
	d, err := s.Duration("duration", 0)
	check("Duration", d, 90*time.Second, err, "")
	d, err = s.Duration("int", time.Second)
	check("Duration", d, time.Second, err, `invalid setting int="-3": want a duration such as 90s or 1h30m`)
	size, err := s.Size("size", 0)
	check("Size", size, int64(2<<30), err, "")
	size, err = s.Size("zero", 1)
	check("Size", size, int64(0), err, "")
	for _, key := range []string{"large", "negative", "bad"} {
		size, err = s.Size(key, 5)
		check("Size", size, int64(5), err, `invalid setting `+key+`="`+s[key]+`": want a size such as 64MiB`)
	}
	if got := s.String("text", "default"); got != "" {
		t.Errorf("String() = %q, want the empty setting", got)
	}
}

// scan collects the records, and checks Offset against text.
func scan(t *testing.T, text string, source io.Reader, bytesMax int64) ([]string, error) {
	t.Helper()
	var r Scanner
	r.reset(source, "input")
	r.bytesMax = bytesMax
	var lines []string
	for r.Scan() {
		line := string(r.Bytes())
		if at := int(r.Offset()); at > len(text) || !strings.HasPrefix(text[at:], line) {
			t.Fatalf("Offset() = %d, where %.20q does not stand", at, line)
		}
		lines = append(lines, line)
	}
	return lines, r.Err()
}

// lines is the reference implementation: the text between newlines, and after the last one if any.
func lines(text string) []string {
	list := strings.Split(text, "\n")
	if list[len(list)-1] == "" {
		list = list[:len(list)-1]
	}
	return list
}

func equal(a, b []string) bool {
	return strings.Join(a, "\n|") == strings.Join(b, "\n|") && len(a) == len(b)
}

func FuzzRecords(f *testing.F) {
	f.Add("")
	f.Add("\n")
	f.Add("a")
	f.Add("a\n\nb\r\n")
	f.Add(strings.Repeat("x", scannerBufferStart-1) + "\n" + strings.Repeat("y", 2*scannerBufferStart+1))
	f.Fuzz(func(t *testing.T, text string) {
		for name, source := range map[string]io.Reader{
			"at once": strings.NewReader(text),
			"halves":  iotest.HalfReader(strings.NewReader(text)),
			"eof":     iotest.DataErrReader(strings.NewReader(text)),
		} {
			if got, err := scan(t, text, source, math.MaxInt64); err != nil || !equal(got, lines(text)) {
				t.Errorf("%s: records of %.50q = %.100q, %v", name, text, got, err)
			}
		}
	})
}

func TestRecordsByteByByte(t *testing.T) {
	text := "one\n\ntwo\n" + strings.Repeat("z", 1000) + "\nend"
	got, err := scan(t, text, iotest.OneByteReader(strings.NewReader(text)), 1000)
	if err != nil || !equal(got, lines(text)) {
		t.Errorf("records = %q, %v", got, err)
	}
}

func TestRecordsLimit(t *testing.T) {
	long := strings.Repeat("x", 3*scannerBufferStart)
	for _, test := range []struct {
		text  string
		limit int64
		at    string
		good  int
	}{
		{"ok\n12345678\nno\n", 7, "byte 3", 1},
		{"ok\n12345678", 7, "byte 3", 1},
		{"ok\n" + long + "\n", 2 * scannerBufferStart, "byte 3", 1},
		{"ok\n" + long, int64(len(long)), "", 2},
	} {
		got, err := scan(t, test.text, strings.NewReader(test.text), test.limit)
		if len(got) != test.good {
			t.Errorf("limit %d: %d records, want %d", test.limit, len(got), test.good)
		}
		if test.at == "" {
			if err != nil {
				t.Errorf("limit %d: %v", test.limit, err)
			}
			continue
		}
		if !IsBadInput(err) || !strings.Contains(err.Error(), test.at) || !strings.Contains(err.Error(), "record_max") {
			t.Errorf("limit %d: %v, want bad input that names %s and the setting", test.limit, err, test.at)
		}
	}
}

func TestRecordsDoNotAllocate(t *testing.T) {
	text := bytes.Repeat([]byte("some words in a line\n"), 10_000)
	var task Task
	source := bytes.NewReader(nil)
	allocs := testing.AllocsPerRun(5, func() {
		source.Reset(text)
		task.reset(t.Context(), &hooks.TaskSpec{Source: source, Output: io.Discard})
		for records := task.Records(); records.Scan(); {
			if err := task.Out().Emit(records.Bytes(), records.Bytes()[:4]); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := task.finish(); err != nil || n != 10_000 {
			t.Fatalf("Finish() = %d, %v", n, err)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for 10,000 records, want none", allocs)
	}
}

func TestOutput(t *testing.T) {
	var got bytes.Buffer
	var o Writer
	o.reset(&got, 0)
	var want strings.Builder
	big := strings.Repeat("b", 3*writerBufferSize+7)
	for i := range 20_000 {
		_, err := o.WriteString("a line\n")
		err = errors.Join(err, o.EmitInt([]byte("key"), int64(-i)), o.Emit([]byte("k"), []byte("v")), o.WriteByte('\n'))
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20_000 {
		want.WriteString("a line\nkey\t" + itoa(-i) + "\nk\tv\n\n")
	}
	if _, err := o.Write([]byte(big)); err != nil {
		t.Fatal(err)
	}
	want.WriteString(big)
	if o.Size() != int64(want.Len()) {
		t.Errorf("Size() = %d, want %d", o.Size(), want.Len())
	}
	records, err := o.finish()
	if err != nil || records != 80_001 || got.String() != want.String() {
		t.Errorf("finish() = %d, %v; %d bytes, want 80001 records and %d bytes", records, err, got.Len(), want.Len())
	}
}

func itoa(i int) string {
	if i < 0 {
		return "-" + itoa(-i)
	}
	if i < 10 {
		return string(rune('0' + i))
	}
	return itoa(i/10) + itoa(i%10)
}

func TestOutputErrorIsKept(t *testing.T) {
	broken := errors.New("broken")
	var task Task
	task.reset(t.Context(), &hooks.TaskSpec{Output: writerFunc(func([]byte) (int, error) { return 0, broken })})
	for range 2 * writerBufferSize {
		_ = task.Out().WriteByte('x')
	}
	if _, err := task.finish(); !errors.Is(err, broken) || !errors.Is(task.out.err, broken) {
		t.Errorf("Finish() = %v, want the error that Map overlooked", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestTaskRemembersReadErrors(t *testing.T) {
	broken := errors.New("broken")
	var task Task
	task.reset(t.Context(), &hooks.TaskSpec{Source: iotest.ErrReader(broken)})
	_, _ = task.Read(make([]byte, 1))
	if _, err := task.finish(); !errors.Is(err, broken) {
		t.Errorf("after Read: Finish() = %v, want %v", err, broken)
	}
	task.reset(t.Context(), &hooks.TaskSpec{Source: iotest.ErrReader(broken)})
	task.Records().Scan()
	if _, err := task.finish(); !errors.Is(err, broken) {
		t.Errorf("after Scan: Finish() = %v, want %v", err, broken)
	}
	task.reset(t.Context(), &hooks.TaskSpec{})
	if task.Records().Scan() {
		t.Error("Scan() = true for a task without input")
	}
	if _, err := task.finish(); err != nil {
		t.Errorf("Finish() = %v after Reset, want nil", err)
	}
}

// collector writes n bytes, then returns err.
type collector struct {
	Mapper
	n   int
	err error
}

func (j collector) Collect(_ context.Context, c *Collection) error {
	_, _ = c.Out().Write(make([]byte, j.n))
	return j.err
}

func TestCollectionLimit(t *testing.T) {
	failed := errors.New("no")
	for _, test := range []struct {
		name   string
		job    collector
		max    string
		kept   bool
		failed bool
	}{
		{"within", collector{n: 1 << 20}, "1MiB", true, false},
		{"overlooked", collector{n: 1<<20 + 1}, "1MiB", false, false},
		{"returned", collector{n: 0, err: ErrResultTooLarge}, "1MiB", false, false},
		{"parts", collector{n: 10, err: ErrPartsAreResult}, "1MiB", false, false},
		{"failed", collector{n: 10, err: failed}, "1MiB", false, true},
		{"setting", collector{n: 10}, "much", false, true},
	} {
		var log bytes.Buffer
		c := newCollection(&hooks.CollectionSpec{Settings: Settings{SettingResultMax: test.max}, Output: io.Discard, Log: &log})
		_, kept, err := c.run(t.Context(), test.job)
		if kept != test.kept || (err != nil) != test.failed {
			t.Errorf("%s: Run() = %v, %v, want %v, failed %v", test.name, kept, err, test.kept, test.failed)
		}
		if said := strings.Contains(log.String(), "over its size limit"); said != (test.name == "overlooked" || test.name == "returned") {
			t.Errorf("%s: log is %q", test.name, log.String())
		}
	}
}

// careless reads parts and ignores errors.
type careless struct{ Mapper }

func (careless) Collect(_ context.Context, c *Collection) error {
	for part, err := range c.Parts() {
		if err == nil {
			for records := part.Records(); records.Scan(); {
				continue
			}
		}
	}
	return nil
}

func TestCollectionRemembersErrors(t *testing.T) {
	broken := errors.New("broken")
	for name, parts := range map[string]func(func(hooks.PartSpec, error) bool){
		"part": func(yield func(hooks.PartSpec, error) bool) { yield(hooks.PartSpec{}, broken) },
		"source": func(yield func(hooks.PartSpec, error) bool) {
			yield(hooks.PartSpec{Source: iotest.ErrReader(broken)}, nil)
		},
	} {
		c := newCollection(&hooks.CollectionSpec{Parts: parts, Output: io.Discard})
		if _, kept, err := c.run(t.Context(), careless{}); !errors.Is(err, broken) || kept {
			t.Errorf("%s: Run() = %v, %v, want %v", name, kept, err, broken)
		}
	}
	long := func(yield func(hooks.PartSpec, error) bool) {
		yield(hooks.PartSpec{Source: strings.NewReader("12345\n"), Name: "part"}, nil)
	}
	c := newCollection(&hooks.CollectionSpec{Parts: long, Output: io.Discard, Settings: Settings{SettingRecordMax: "4"}})
	if _, _, err := c.run(t.Context(), careless{}); !IsBadInput(err) {
		t.Errorf("Run() = %v, want the record that is too long", err)
	}
}
