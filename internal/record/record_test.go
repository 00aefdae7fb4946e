package record_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/bridgefour/bridgefour/internal/record"
)

func parse(tb testing.TB, text string) *record.Kind {
	tb.Helper()
	k, err := record.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// naive returns the offsets at which the records of a text begin, from its beginning on. The first header lines are no records.
func naive(kind, text string, header int) []int {
	var starts []int
	at, line, quoted := 0, 0, false
	for text := range strings.Lines(text) {
		begins := !quoted
		content := strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
		switch kind {
		case "fasta":
			begins = strings.HasPrefix(text, ">")
		case "fastq":
			begins = line%4 == 0
		case "start:^A":
			begins = regexp.MustCompile("^A").MatchString(content)
		case "csv":
			quoted = quoted != (strings.Count(text, `"`)%2 == 1)
		}
		if header > 0 {
			if kind != "csv" || !quoted {
				header--
			}
		} else if begins || len(starts) == 0 {
			starts = append(starts, at)
		}
		at += len(text)
		line++
	}
	return starts
}

// owned returns the records that begin in [from, to).
func owned(text string, starts []int, from, to int) string {
	var out strings.Builder
	for i, start := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		if start >= from && start < to {
			out.WriteString(text[start:end])
		}
	}
	return out.String()
}

// source returns a reader of a text from an offset on, in pieces of a size.
func source(text string, from, piece int) io.Reader {
	return &pieces{strings.NewReader(text[max(0, min(from, len(text))):]), piece}
}

type pieces struct {
	r    io.Reader
	size int
}

func (p *pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.size)]) }

// checkSplits cuts a text at every size bytes, and reads the splits in pieces.
func checkSplits(tb rapid.TB, kind, text string, size, piece, header int) {
	k, err := record.Parse(kind)
	if err != nil {
		tb.Fatal(err)
	}
	starts := naive(kind, text, header)
	records := len(text)
	if len(starts) > 0 {
		records = starts[0]
	}
	head := text[:0]
	if header > 0 {
		got, ahead, err := record.Header(source(text, 0, piece), k, header)
		if err != nil || string(got) != text[:records] || !strings.HasPrefix(text[records:], string(ahead)) {
			tb.Fatalf("Header(%q, %d) = %q and %q, %v, want %q", text, header, got, ahead, err, text[:records])
		}
		head = string(got)
	}
	var boundaries []int64
	if k.IsCSV() && text != "" {
		if boundaries, err = record.CSVBoundaries(source(text, 0, piece), int64(len(text)), int64(size), header); err != nil {
			tb.Fatalf("CSVBoundaries(%q): %v", text, err)
		}
	}
	var r, on record.Reader // on reads all of the text once
	on.ResetAt(k, source(text, len(head), piece), nil, int64(len(head)), int64(size))
	var all strings.Builder
	for i, from := 0, 0; from < len(text); i, from = i+1, from+size {
		to := min(from+size, len(text))
		if k.IsCSV() {
			begin, end := int64(len(head)), int64(len(text))
			if i > 0 {
				begin = boundaries[i-1]
			}
			if i < len(boundaries) {
				end = boundaries[i]
			}
			r.ResetAt(k, source(text, int(begin), piece), nil, begin, end)
		} else if from <= len(head) {
			ahead := text[len(head):min(len(head)+7, len(text))]
			r.ResetAt(k, source(text, len(head)+len(ahead), piece), []byte(ahead), int64(len(head)), int64(to))
		} else {
			r.Reset(k, source(text, from-1, piece), int64(from), int64(to))
		}
		got, err := io.ReadAll(&pieces{&r, piece})
		want := owned(text, starts, from, to)
		if !k.IsCSV() {
			got, err := io.ReadAll(&pieces{&on, piece})
			more, failed := on.Next(int64(from + 2*size))
			if err != nil || failed != nil || string(got) != want || more != (from+size < len(text)) {
				tb.Fatalf("%s: [%d, %d) of %q is %q, %v, more %v, %v; want %q", kind, from, from+size, text, got, err, more, failed, want)
			}
		}
		if err != nil || string(got) != want {
			tb.Fatalf("%s: split [%d, %d) of %.300q in pieces of %d = %.300q, %v, want %.300q", kind, from, to, text, piece, got, err, want)
		}
		all.Write(got)
	}
	if all.String() != text[len(head):] {
		tb.Fatalf("%s: the splits of %.300q by %d together = %.300q", kind, text, size, all.String())
	}
}

// draw draws a text of a kind.
func draw(t *rapid.T, kind string) string {
	end := rapid.SampledFrom([]string{"\n", "\n", "\r\n"})
	var text strings.Builder
	switch kind {
	case "fastq":
		quality := rapid.StringMatching(`[@+IJ!~]{0,6}`)
		for range rapid.IntRange(0, 6).Draw(t, "records") {
			q, e := quality.Draw(t, "quality"), end.Draw(t, "end")
			text.WriteString("@" + quality.Draw(t, "name") + e + strings.Repeat("N", len(q)) + e + "+" + quality.Draw(t, "again") + e + q + e)
		}
	case "csv":
		field := rapid.SampledFrom([]string{"", "a", "long field", `""`, `"a"`, `"two` + "\n" + `lines"`, `"a ""quote"""`, `""""`, `"` + "\r\n\n" + `,"`})
		for range rapid.IntRange(0, 8).Draw(t, "rows") {
			text.WriteString(strings.Join(rapid.SliceOfN(field, 1, 4).Draw(t, "row"), rapid.SampledFrom([]string{",", ";", "\t"}).Draw(t, "separator")))
			text.WriteString(end.Draw(t, "end"))
		}
	default:
		words := []string{"\n", "\n", "A", ">", "bc", "\r\n", "\xff", "\nA", "\n>", strings.Repeat("x", 50)}
		return strings.Join(rapid.SliceOf(rapid.SampledFrom(words)).Draw(t, "text"), "")
	}
	return strings.TrimSuffix(text.String(), rapid.SampledFrom([]string{"", "\n"}).Draw(t, "last"))
}

// TestSplitsAreTheRecords is the promise: however a file is cut, its splits are its records, each once.
func TestSplitsAreTheRecords(t *testing.T) {
	for _, kind := range []string{"lines", "jsonl", "start:^A", "fasta", "fastq", "csv"} {
		t.Run(kind, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				text := draw(t, kind)
				header := 0
				if kind != "fasta" && kind != "fastq" {
					header = rapid.IntRange(0, 3).Draw(t, "header")
				}
				size := rapid.IntRange(1, len(text)+2).Draw(t, "size")
				checkSplits(t, kind, text, size, rapid.IntRange(1, 100).Draw(t, "piece"), header)
			})
		})
	}
}

func FuzzRecords(f *testing.F) {
	f.Add("one\n>two\n\nA\nthree", 4, 3, 1)
	f.Add("no line end at all", 5, 100, 0)
	f.Fuzz(func(t *testing.T, text string, size, piece, header int) {
		if size < 1 || piece < 1 || piece > 1<<20 || header < 0 || header > 10 || len(text)/size > 1000 {
			return
		}
		for _, kind := range []string{"lines", "start:^A", "fasta"} {
			checkSplits(t, kind, text, size, piece, header)
		}
	})
}

// FuzzCSV compares accepted files with encoding/csv, which refuses some that are accepted here, but not the other way round.
func FuzzCSV(f *testing.F) {
	f.Add("a,\"b\nc\"\n\n\"d\"\"\n\",e", 3)
	f.Fuzz(func(t *testing.T, text string, size int) {
		if size < 1 || len(text) == 0 || len(text)/size > 1000 || strings.Contains(text, "\r") {
			return
		}
		boundaries, err := record.CSVBoundaries(strings.NewReader(text), int64(len(text)), int64(size), 0)
		if err != nil {
			return
		}
		rows := csv.NewReader(strings.NewReader(text))
		rows.FieldsPerRecord = -1
		starts := map[int64]bool{0: true, int64(len(text)): true}
		for at := int64(0); ; at = rows.InputOffset() {
			starts[at] = true
			for ; at < int64(len(text)) && text[at] == '\n'; starts[at] = true { // it skips empty lines
				at++
			}
			if _, err := rows.Read(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return
			}
		}
		for _, at := range boundaries {
			if !starts[at] {
				t.Errorf("%q is cut at %d, where no row begins", text, at)
			}
		}
	})
}

// TestSplitsOfLongRecords uses records that are longer than the reads and than the splits.
func TestSplitsOfLongRecords(t *testing.T) {
	var lines, fastq strings.Builder
	for i := range 7 {
		n := i * i * 37_003 % 1_000_003
		fmt.Fprintf(&lines, "A%s\n%s\n", strings.Repeat("l", n), strings.Repeat("\n>", i))
		fmt.Fprintf(&fastq, "@%d\n%s\n+\n%s\n", i, strings.Repeat("N", n), strings.Repeat("@", n))
	}
	for _, size := range []int{4 << 10, 256<<10 - 1, 768 << 10} {
		for _, kind := range []string{"lines", "start:^A", "fasta"} {
			checkSplits(t, kind, lines.String(), size, 64<<10, 0)
		}
		checkSplits(t, "fastq", fastq.String(), size, 64<<10, 0)
		checkSplits(t, "csv", `"`+strings.ReplaceAll(lines.String(), "\nA", "\"\n\"A")+`"`, size, 64<<10, 1)
	}
}

// Files that are not what they are said to be are refused, not cut somewhere.
func TestRefusedFiles(t *testing.T) {
	fastq := parse(t, "fastq")
	for name, text := range map[string]string{
		"sequences of two lines":   "@a\nNN\nNN\n+\nIIII\n@b\nNN\n+\nII\n",
		"FASTA":                    ">a\nNN\n>b\nNN\n",
		"too few qualities":        "@a\nNN\n+\nI\n@b\nNN\n+\nII\n",
		"a truncated record":       "@a\nNN\n+\nII\n@b\nNN\n",
		"no plus":                  "@a\nNN\nII\n@b\nNN\nII\n",
		"a line between records":   "@a\nNN\n+\nII\ncomment\n@b\nNN\n+\nII\n",
		"qualities in two lines":   "@a\nNNNN\n+\nII\n@I\n@b\nNN\n+\nII\n",
		"qualities like a header ": "@a\nNNNN\n+\n@I\nNI\n+I\nII\n",
	} {
		for size := 1; size <= len(text); size++ {
			refused := false
			for from := 0; from < len(text); from += size {
				var r record.Reader
				if to := int64(min(len(text), from+size)); from == 0 {
					r.ResetAt(fastq, strings.NewReader(text), nil, 0, to)
				} else {
					r.Reset(fastq, strings.NewReader(text[from-1:]), int64(from), to)
				}
				if _, err := io.ReadAll(&r); err != nil {
					refused = true
					if !strings.Contains(err.Error(), "FASTQ with four lines a record is wanted") {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
			if !refused {
				t.Errorf("%s is read in splits of %d", name, size)
			}
		}
	}
	for name, text := range map[string]string{
		"an open quote":     "a,b\n\"c,d\ne,f\n",
		"inches":            "size,name\n5\",pipe\n6\",\"hose\n\"\n",
		"text behind":       "a,\"b\" c\nd,e\n",
		"a quote in a word": "a,say \"hi\"\nb,c\n",
	} {
		if _, err := record.CSVBoundaries(strings.NewReader(text), int64(len(text)), 3, 1); err == nil || !strings.Contains(err.Error(), "the quote at byte") {
			t.Errorf("CSVBoundaries(%s) = %v, want an error that names the byte", name, err)
		}
	}
	if _, err := record.CSVBoundaries(strings.NewReader("a\nb\n"), 5, 2, 0); err == nil {
		t.Error("CSVBoundaries of a file that shrank succeeds")
	}
	if _, _, err := record.Header(strings.NewReader(strings.Repeat("x", 2<<20)), record.Lines, 1); err == nil {
		t.Error("Header of 2 MiB succeeds")
	}
}

// A file that ends before its split, or in the split, ends the records there.
func TestShortFiles(t *testing.T) {
	text := "one\ntwo\nthr"
	for _, test := range []struct {
		from, end int64
		want      string
		offset    int64
	}{{2, 100, "two\nthr", 11}, {50, 100, "", 49}, {0, 100, text, 11}, {0, 4, "one\n", 4}, {9, 11, "", 11}} {
		var r record.Reader
		r.Reset(record.Lines, source(text, int(test.from)-1, 3), test.from, test.end)
		if test.from == 0 {
			r.ResetAt(record.Lines, source(text, 0, 3), nil, 0, test.end)
		}
		got, err := io.ReadAll(&r)
		if err != nil || string(got) != test.want || r.Offset() != test.offset {
			t.Errorf("[%d, %d) = %q up to %d, %v, want %q up to %d", test.from, test.end, got, r.Offset(), err, test.want, test.offset)
		}
	}
}

func TestReadErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, from := range []int64{1, 5} {
		var r record.Reader
		r.Reset(record.Lines, io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), from, 4)
		if _, err := io.ReadAll(&r); from < 4 && !errors.Is(err, broken) {
			t.Errorf("from %d: %v", from, err)
		}
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":             "lines",
		"lines":        "lines",
		"fixed:16":     "fixed",
		"start:^From ": "start",
		"fasta":        "fasta",
		"csv":          "csv",
	} {
		if k, err := record.Parse(text); err != nil || k.String() != want {
			t.Errorf("Parse(%q) = %v, %v", text, k, err)
		}
	}
	for text, want := range map[string]string{
		"tsv":                                    "unknown kind of records \"tsv\"; known: lines, fixed:N",
		"fixed":                                  "unknown kind",
		"fixed:0":                                "want fixed:N",
		"fixed:1k":                               "want fixed:N",
		"start:":                                 "want start:REGEXP",
		"start:(":                                "missing closing )",
		"start:" + strings.Repeat("x", 2000):     "1 to 1000 bytes",
		"start:" + strings.Repeat("x{1000}", 30): "too complex",
		"lines:1":                                "unknown kind",
	} {
		if _, err := record.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.50q) = %v, want %q", text, err, want)
		}
	}
}

func BenchmarkCSVBoundaries(b *testing.B) {
	for name, row := range map[string]string{
		"plain":  "12,some text without quotes,3.14159,another field with text\n",
		"quoted": "\"12\",\"some text, quoted\",\"3.14159\",\"another field\"\n",
	} {
		b.Run(name, func(b *testing.B) {
			text := bytes.Repeat([]byte(row), 1<<20)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := record.CSVBoundaries(bytes.NewReader(text), int64(len(text)), 8<<20, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for kind, text := range map[string]string{
		"lines": "a line of a log with a usual length of about eighty bytes, more or less, 12345\n",
		"fastq": "@SRR001666.1 071112_SLXA-EAS1_s_7:5:1:817:345\n" + strings.Repeat("ACGT", 37) + "\n+\n" + strings.Repeat("I9IG", 37) + "\n",
	} {
		b.Run(kind, func(b *testing.B) {
			data := bytes.Repeat([]byte(text), 64<<20/len(text))
			k := parse(b, kind)
			b.SetBytes(int64(len(data)))
			var r record.Reader
			buf := make([]byte, 64<<10)
			for b.Loop() {
				r.Reset(k, bytes.NewReader(data), 0, int64(len(data)))
				for {
					if _, err := r.Read(buf); err != nil {
						break
					}
				}
			}
		})
	}
}
