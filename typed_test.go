package bridgefour_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
)

type wordsConfig struct {
	MinLength int `b4:"min_length,default=1" help:"shortest word"`
}

func words(cfg wordsConfig) (b4.Output, error) {
	words := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, int64]) error {
		for w := range bytes.FieldsSeq(line) {
			if len(w) >= cfg.MinLength {
				emit(string(w), 1)
			}
		}
		return nil
	})
	counts := b4.Combine(words, b4.Sum[int64])
	type order struct {
		count b4.Desc[int64]
		word  string
	}
	return b4.Sort(counts, func(c b4.KV[string, int64]) order { return order{b4.Desc[int64]{c.Value}, c.Key} }), nil
}

// A job in three stages: count, add, sort.
func ExampleNew() {
	job := b4.New("words", words)
	got, err := bridgefourtest.Run(context.Background(), job, bridgefourtest.Input{
		Files:    []string{"to be or not to be\n", "to do is to be"},
		Settings: b4.Settings{"min_length": "2"},
	})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// to	4
	// be	3
	// do	1
	// is	1
	// not	1
	// or	1
	// <nil>
}

// A reducer reads the values of a key one by one.
func ExampleReduce() {
	longest := func(struct{}) (b4.Output, error) {
		byFile := b4.Map(b4.Lines(), func(t *b4.Task, line []byte, emit b4.Emit[string, string]) error {
			emit(t.Input(), string(line))
			return nil
		})
		return b4.Reduce(byFile, func(_ string, lines iter.Seq[string]) (most int, err error) {
			for l := range lines {
				most = max(most, len(l))
			}
			return most, nil
		}), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("longest", longest), bridgefourtest.Input{
		Files: []string{"one\nthree", "", "fourteen\n"}, Names: []string{"a", "b", "c"}, Partitions: 1,
	})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// a	5
	// c	8
	// <nil>
}

// Groups can end in any number of pairs, and be mapped again without a shuffle.
func ExampleGroups() {
	twice := func(struct{}) (b4.Output, error) {
		lines := b4.Map(b4.Lines(), func(t *b4.Task, line []byte, emit b4.Emit[[]byte, uint64]) error {
			emit(line, t.Index())
			return nil
		})
		return b4.Map(b4.Groups(lines), func(_ *b4.Task, g b4.Group[[]byte, uint64], emit b4.Emit[[]byte, struct{}]) error {
			n := 0
			for range g.Values {
				if n++; n == 2 {
					emit(g.Key, struct{}{})
					break
				}
			}
			return nil
		}), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("twice", twice), bridgefourtest.Input{
		Items: []string{"b", "a", "b", "c", "a", "b"}, Partitions: 1,
	})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// a
	// b
	// <nil>
}

type flight struct {
	From, To string
	Seats    int
}

// Rows of CSV files are structs.
func ExampleCSV() {
	seats := func(struct{}) (b4.Output, error) {
		flights := b4.Map(b4.CSV[flight](), func(_ *b4.Task, f flight, emit b4.Emit[string, int]) error {
			emit(f.From, f.Seats)
			return nil
		})
		return b4.Top(b4.Combine(flights, b4.Sum[int]), 2, func(p b4.KV[string, int]) b4.Desc[int] { return b4.Desc[int]{p.Value} }), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("seats", seats), bridgefourtest.Input{
		Files: []string{"TXL,\"Paris, Orly\",100\nHAM,TXL,50\n", "FRA,JFK,400\nTXL,HAM,1\n"},
	})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// FRA	400
	// TXL	101
	// <nil>
}

// A header says which column is which.
func ExampleTask_Header() {
	got, err := bridgefourtest.Run(context.Background(), csvJob(), bridgefourtest.Input{
		Files: []string{"no,seats,TO,from\n1,100,TXL,HAM\n"}, Header: 1,
	})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// HAM	100
	// <nil>
}

// lengths are the lengths of records.
func lengths(struct{}) (b4.Output, error) {
	return b4.Map(b4.Records(), func(_ *b4.Task, record []byte, emit b4.Emit[int, []byte]) error {
		emit(len(record), record)
		return nil
	}), nil
}

// Records are of any kind, here sequences of DNA.
func ExampleRecords() {
	got, err := bridgefourtest.Run(context.Background(), b4.New("lengths", lengths), bridgefourtest.Input{
		Files: []string{">a\nACGT\nAC\n>b\n\n>c\nG"}, Records: "fasta",
	})
	fmt.Printf("%q %v\n", got.Parts, err)
	// Output: ["10\t>a\nACGT\nAC\n3\t>b\n\n4\t>c\nG\n"] <nil>
}

func TestRecords(t *testing.T) {
	long := "A" + strings.Repeat("x\n", 100_000)
	for _, test := range []struct{ records, text, want, err string }{
		{"", "a\nbb", "1\ta\n2\tbb\n", ""},
		{"jsonl", "{}\n", "2\t{}\n", ""},
		{"fixed:2", "ab\ncd", "2\tab\n2\t\nc\n", "map/0: BAD_INPUT: input-0: the last record has less than 2 bytes"},
		{"start:^A", "A1\nb\nA2\n", "4\tA1\nb\n2\tA2\n", ""},
		{"start:^A", long + long, fmt.Sprintf("%d\t%s%[1]d\t%[2]s", len(long)-1, long), ""},
		{"start:^A", "", "", ""},
		{"fastq", "@a\nAC\n+\n!!\n@b\nA\n+\n@\n", "10\t@a\nAC\n+\n!!\n8\t@b\nA\n+\n@\n", ""},
		{"csv", "a", "", "map/0: BAD_INPUT: a job that reads records takes no --records csv: its rows are read by bridgefour.CSV"},
	} {
		got, err := bridgefourtest.Run(t.Context(), b4.New("lengths", lengths), bridgefourtest.Input{Files: []string{test.text}, Records: test.records})
		if test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%s: Run() = %v, want %s", test.records, err, test.err)
			}
			continue
		}
		if err != nil || got.Text() != test.want {
			t.Errorf("%s of %.50q = %.100q, %v, want %.100q", test.records, test.text, got.Text(), err, test.want)
		}
	}
	input := bridgefourtest.Input{Files: []string{long}, Records: "start:^A", Settings: b4.Settings{b4.SettingRecordMax: "1000"}}
	if _, err := bridgefourtest.Run(t.Context(), b4.New("lengths", lengths), input); err == nil || !strings.Contains(err.Error(), "record at byte 0 of the split exceeds 1000 bytes") {
		t.Errorf("Run() = %v, want the record that is too long", err)
	}
}

func TestCSV(t *testing.T) {
	for _, test := range []struct{ header, text, want string }{
		{"\ufefffrom,to,seats\n", "Rome,Oslo,2\n", "Rome\t2\n"},
		{"from,to,seats\n", "Rome,Oslo,2\nx \"y\" z,A,3\n", "map/0: BAD_INPUT: input-0: row at byte 26: bare \" in non-quoted-field"},
		{"from,to,seats\n", "\"Rome,Oslo,2\n", "map/0: BAD_INPUT: input-0: row at byte 14: extraneous or missing \" in quoted-field"},
		{"from,to,seats\n", "Rome\n", "map/0: BAD_INPUT: input-0: row at byte 14: columns separated by ',': 1; want 3"},
		{"from;to;seats\n", "Rome;\"Oslo; Bergen\";2\n", "Rome\t2\n"},
		{"\ufeff\"from\"\t\"to, or via\"\tto\tseats\n", "Rome, Italy\tx\tOslo\t2\n", "Rome, Italy\t2\n"},
		{"seats|to|from\n", "2|Oslo, Bergen|Rome\n", "Rome\t2\n"},
		{"from,to,seats,note,note\n", "Rome,Oslo,2,,\n", "Rome\t2\n"},
		{"seats,from,to, FROM\n", "2,Rome,Oslo,Riga\n", "map/0: BAD_INPUT: input-0: the header has the column \"from\" twice: the columns 2 and 4 are \"from\" and \" FROM\""},
		{"from;to;seat, all\n", "Rome;Oslo;2\n", "map/0: BAD_INPUT: input-0: the header has no column \"seats\": it has from, to, seat, all"},
		{"from;\"to\n", "", "map/0: BAD_INPUT: input-0: the header \"from;\\\"to\\n\" is not valid CSV"},
	} {
		got, err := bridgefourtest.Run(t.Context(), csvJob(), bridgefourtest.Input{Files: []string{test.header + test.text}, Records: "csv", Header: 1})
		if text := got.Text(); err == nil && text != test.want || err != nil && err.Error() != test.want {
			t.Errorf("%q = %q, %v; want %q", test.text, text, err, test.want)
		}
	}
}

// TestSeparator: what separates the columns of files without a header is said by the job, and so is one that is not found in the header.
func TestSeparator(t *testing.T) {
	for _, test := range []struct {
		separator    rune
		header, text string
		want         string
	}{
		{';', "", "Rome;Oslo, Bergen;2\n", "Rome\t2\n"},
		{'\t', "", "\"Rome\"\tOslo\t2\n", "Rome\t2\n"},
		{'|', "from|to|seats\n", "Rome|Oslo|2\n", "Rome\t2\n"},
		{';', "from,to,seats\n", "", "map/0: BAD_INPUT: input-0: the header has no column \"from\": it has from,to,seats"},
		{0, "", "Rome;Oslo;2\n", "map/0: BAD_INPUT: input-0: row at byte 0: columns separated by ',': 1; want 3"},
		{':', "", "", "job csv: CSV rows with the separator ':': want a comma, semicolon, tab or vertical bar"},
	} {
		job := b4.New("csv", func(struct{}) (b4.Output, error) {
			return b4.Map(b4.CSV[flight](b4.Separator(test.separator)), seats), nil
		})
		got, err := bridgefourtest.Run(t.Context(), job, bridgefourtest.Input{Files: []string{test.header + test.text}, Records: "csv", Header: strings.Count(test.header, "\n")})
		if text := got.Text(); err == nil && text != test.want || err != nil && err.Error() != test.want {
			t.Errorf("%q with %q = %q, %v; want %q", test.header+test.text, test.separator, text, err, test.want)
		}
	}
}

// TestLineEnds: a carriage return before the end of a line, or of the last one, is not part of it. Items are what they are.
func TestLineEnds(t *testing.T) {
	text := "a\r\nb\r\r\n\r\nc\r"
	for name, test := range map[string]struct {
		input  bridgefourtest.Input
		source b4.Dataset[[]byte]
		want   string
	}{
		"lines":   {bridgefourtest.Input{Files: []string{text}}, b4.Lines(), "a\nb\r\n\nc\n"},
		"records": {bridgefourtest.Input{Files: []string{text}}, b4.Records(), "a\nb\r\n\nc\n"},
		"start":   {bridgefourtest.Input{Files: []string{">a\r\nb\r\n>c\r\n"}, Records: "fasta"}, b4.Records(), ">a\r\nb\n>c\n"},
		"items":   {bridgefourtest.Input{Items: []string{"a\r"}}, b4.Lines(), "a\r\n"},
	} {
		job := b4.New("j", func(struct{}) (b4.Output, error) {
			return b4.Map(test.source, func(_ *b4.Task, line []byte, emit b4.Emit[struct{}, []byte]) error {
				emit(struct{}{}, line)
				return nil
			}), nil
		})
		if got, err := bridgefourtest.Run(t.Context(), job, test.input); err != nil || got.Text() != test.want {
			t.Errorf("%s = %q, %v; want %q", name, got.Text(), err, test.want)
		}
	}
}

// Lines of JSON are structs too.
func ExampleJSONL() {
	type event struct{ User, Kind string }
	kinds := func(struct{}) (b4.Output, error) {
		events := b4.Map(b4.JSONL[event](), func(_ *b4.Task, e event, emit b4.Emit[string, struct{}]) error {
			emit(e.Kind, struct{}{})
			return nil
		})
		return b4.Combine(events, b4.Any), nil
	}
	got, err := bridgefourtest.Run(context.Background(), b4.New("kinds", kinds), bridgefourtest.Input{
		Files: []string{`{"user":"a","kind":"login"}` + "\n\n" + `{"kind":"login"}`}, Partitions: 1,
	})
	fmt.Print(got.Text(), err, "\n")
	// Output:
	// login
	// <nil>
}

// texts are random lines with keys of a distribution.
func texts(r *rand.Rand, kind string) (files []string) {
	zipf := rand.NewZipf(r, 1.2, 1, 5000)
	for range 4 {
		var b strings.Builder
		for range 3000 {
			switch kind {
			case "uniform":
				fmt.Fprintf(&b, "k%d ", r.IntN(4000))
			case "zipf":
				fmt.Fprintf(&b, "k%d ", zipf.Uint64())
			case "equal":
				b.WriteString("k ")
			case "binary":
				b.Write([]byte{byte(r.IntN(3)), 'a' + byte(r.IntN(3)), 0xff * byte(r.IntN(2)), ' '})
			}
			if r.IntN(10) == 0 {
				b.WriteByte('\n')
			}
		}
		files = append(files, b.String())
	}
	if kind == "empty" {
		return []string{"", "\n"}
	}
	return files
}

func TestWordsAgreeWithAMap(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for _, kind := range []string{"uniform", "zipf", "equal", "binary", "empty"} {
		files := texts(r, kind)
		counts := map[string]int{}
		for _, f := range files {
			for w := range strings.FieldsSeq(f) {
				counts[w]++
			}
		}
		order := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
			return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
		})
		var want strings.Builder
		for _, w := range order {
			fmt.Fprintf(&want, "%s\t%d\n", w, counts[w])
		}
		for _, partitions := range []int{1, 2, 7} {
			got, err := bridgefourtest.Run(t.Context(), b4.New("words", words), bridgefourtest.Input{Files: files, Partitions: partitions})
			if err != nil || got.Text() != want.String() {
				t.Errorf("seed %d, %s, %d partitions: %d bytes, %v, want %d bytes", seed, kind, partitions, len(got.Text()), err, want.Len())
			}
		}
	}
}

// TestPlanPanics: the zero value of a dataset between others is an error of the job, and ends no program that has it.
func TestPlanPanics(t *testing.T) {
	for name, build := range map[string]func(struct{}) (b4.Output, error){
		"pairs": func(struct{}) (b4.Output, error) { return b4.Combine(b4.Pairs[string, int]{}, b4.Sum[int]), nil },
		"dataset": func(struct{}) (b4.Output, error) {
			return b4.Map(nil, func(*b4.Task, string, b4.Emit[string, int]) error { return nil }), nil
		},
	} {
		_, err := bridgefourtest.Run(t.Context(), b4.New(name, build), bridgefourtest.Input{Items: []string{"x"}})
		if err == nil || !strings.HasPrefix(err.Error(), "job "+name+": panic: ") {
			t.Errorf("%s: Run() = %v, want the panic as an error", name, err)
		}
	}
}

func TestTypedErrors(t *testing.T) {
	enough := errors.New("enough")
	fails := func(struct{}) (b4.Output, error) {
		return b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, int]) error {
			if string(line) == "bad" {
				return b4.BadInput(enough)
			}
			emit(string(line), 1)
			return nil
		}), nil
	}
	type unsupported struct{ M map[string]int }
	for name, test := range map[string]struct {
		job   b4.Job
		input bridgefourtest.Input
		want  string
	}{
		"map": {b4.New("j", fails), bridgefourtest.Input{Items: []string{"ok", "bad"}}, "map/1: BAD_INPUT: enough"},
		"reduce": {b4.New("j", func(struct{}) (b4.Output, error) {
			lines := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[string, int]) error {
				emit(string(line), 1)
				return nil
			})
			return b4.Reduce(lines, func(string, iter.Seq[int]) (int, error) { return 0, enough }), nil
		}, b4.Partitions(1)), bridgefourtest.Input{Items: []string{"x"}}, "reduce/0: PROGRAM_ERROR: enough"},
		"partitions": {
			b4.New("j", fails, b4.Partitions(-2)),
			bridgefourtest.Input{Items: []string{"ok"}},
			"job j: option Partitions(-2): want 1 to 65536, or 0 for a number that fits the size of the input",
		},
		"more partitions": {
			b4.New("j", fails, b4.Partitions(65537)),
			bridgefourtest.Input{Items: []string{"ok"}},
			"job j: option Partitions(65537): want 1 to 65536, or 0 for a number that fits the size of the input",
		},
		"record kinds": {
			b4.New("j", fails, b4.RecordKinds("csv", "bogus")),
			bridgefourtest.Input{Records: "csv"},
			"job j: option RecordKinds: unknown kind of records \"bogus\"; known: lines, fixed:N, start:REGEXP, fasta, fastq, csv or jsonl",
		},
		"records": {b4.New("j", fails), bridgefourtest.Input{Records: "bogus"}, "unknown kind of records \"bogus\"; known: lines, fixed:N, start:REGEXP, fasta, fastq, csv or jsonl"},
		"nil functions": {b4.New("j", func(struct{}) (b4.Output, error) {
			pairs := b4.Map[[]byte, string, int](b4.Lines(), nil)
			reduced := b4.Reduce[string, int, int](b4.Combine(pairs, nil), nil)
			return b4.Collect[string, int, string, int](b4.Sort[string, int, int](reduced, nil), nil), nil
		}), bridgefourtest.Input{}, "job j: the function of a Map is nil\nthe function of a Combine is nil\nthe function of a Reduce is nil\n" +
			"the function of a Sort or Top is nil\nthe function of a Collect is nil"},
		"own setting": {
			b4.New("j", func(struct{ RecordMax b4.Size }) (b4.Output, error) { return nil, nil }),
			bridgefourtest.Input{},
			"job j: field RecordMax of struct { RecordMax bridgefour.Size }: the setting record_max is one that all jobs have: give it another name",
		},
		"zero pairs": {b4.New("z", func(struct{}) (b4.Output, error) { return b4.Pairs[string, int]{}, nil }), bridgefourtest.Input{}, "job z: its output is a Pairs that no function has made"},
		"setting":    {b4.New("words", words), bridgefourtest.Input{Settings: b4.Settings{"min_length": "x"}}, `invalid setting min_length="x": want an integer such as 30`},
		"large setting": {
			b4.New("r", func(struct {
				A, B int64
				C    uint8
				D    uint64
				E    int
			},
			) (b4.Output, error) {
				return nil, nil
			}),
			bridgefourtest.Input{Settings: b4.Settings{"a": "9223372036854775808", "b": "1e6", "c": "256", "d": "-1", "e": "-9223372036854775809"}},
			`invalid setting a="9223372036854775808": want an integer from -9223372036854775808 to 9223372036854775807
invalid setting b="1e6": want an integer such as 30
invalid setting c="256": want an integer from 0 to 255
invalid setting d="-1": want an integer from 0 to 18446744073709551615
invalid setting e="-9223372036854775809": want an integer from -9223372036854775808 to 9223372036854775807`,
		},
		"unknown": {b4.New("words", words), bridgefourtest.Input{Settings: b4.Settings{"min": "1"}}, `unknown setting "min"`},
		"required": {b4.New("r", func(struct {
			X string `b4:",required"`
		},
		) (b4.Output, error) {
			return nil, nil
		}), bridgefourtest.Input{}, "setting x missing: use --set x=VALUE"},
		"default": {
			b4.New("d", func(struct {
				X int `b4:",default=y"`
			},
			) (b4.Output, error) {
				return nil, nil
			}),
			bridgefourtest.Input{},
			"job d: field X of struct { X int \"b4:\\\",default=y\\\"\" }: the default is not an integer such as 30",
		},
		"tag": {
			b4.New("d", func(struct {
				X int `b4:"default=1"`
			},
			) (b4.Output, error) {
				return nil, nil
			}),
			bridgefourtest.Input{},
			"job d: field X of struct { X int \"b4:\\\"default=1\\\"\" }: \"default=1\" is no name of a setting; a tag is NAME, \",default=VALUE\" or \",required\", or a name and one of these",
		},
		"hidden": {
			b4.New("d", func(struct {
				x int `b4:"x"`
			},
			) (b4.Output, error) {
				return nil, nil
			}),
			bridgefourtest.Input{},
			"job d: field x of struct { x int \"b4:\\\"x\\\"\" } has a tag, but is not exported",
		},
		"twice": {
			b4.New("d", func(struct {
				X int
				Y int `b4:"x"`
			},
			) (b4.Output, error) {
				return nil, nil
			}),
			bridgefourtest.Input{},
			"job d: field Y of struct { X int; Y int \"b4:\\\"x\\\"\" }: another field is the setting x",
		},
		"nothing": {b4.New("n", func(struct{}) (b4.Output, error) { return nil, nil }), bridgefourtest.Input{}, "job n: its building function has returned neither an output nor an error"},
		"type": {b4.New("t", func(struct{}) (b4.Output, error) {
			return b4.Map(b4.Lines(), func(*b4.Task, []byte, b4.Emit[string, unsupported]) error { return nil }), nil
		}), bridgefourtest.Input{}, "job t: value: field M of bridgefour_test.unsupported: type map[string]int cannot be a key or a value: use a string, []byte, bool, a number, or a struct of these"},
		"json":    {jsonJob(), bridgefourtest.Input{Files: []string{"{}\n{\"Seats\":\"x\"}\n"}}, "map/0: BAD_INPUT: input-0: line at byte 3: json: cannot unmarshal string into Go struct field flight.Seats of type int"},
		"columns": {csvJob(), bridgefourtest.Input{Files: []string{"a,b,1\na,b\n"}}, "map/0: BAD_INPUT: input-0: row at byte 6: columns separated by ',': 2; want 3"},
		"header":  {csvJob(), bridgefourtest.Input{Files: []string{"from,to\na,b\n"}, Header: 1}, "map/0: BAD_INPUT: input-0: the header has no column \"seats\": it has from, to"},
		"number":  {csvJob(), bridgefourtest.Input{Files: []string{"a,b,x\n"}}, "map/0: BAD_INPUT: input-0: row at byte 0: column 3 (seats): \"x\": invalid syntax"},
	} {
		_, err := bridgefourtest.Run(t.Context(), test.job, test.input)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: Run() = %v, want %s", name, err, test.want)
		}
	}
}

func seats(_ *b4.Task, f flight, emit b4.Emit[string, int]) error {
	emit(f.From, f.Seats)
	return nil
}

func jsonJob() b4.Job {
	return b4.New("json", func(struct{}) (b4.Output, error) { return b4.Map(b4.JSONL[flight](), seats), nil })
}

func csvJob() b4.Job {
	return b4.New("csv", func(struct{}) (b4.Output, error) { return b4.Map(b4.CSV[flight](), seats), nil })
}
