package jobs

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
	"github.com/bridgefour/bridgefour/internal/hooks"
)

// countWords is the reference implementation.
func countWords(text []byte) map[string]int {
	counts := make(map[string]int)
	for word := range bytes.FieldsSeq(text) {
		counts[string(word)]++
	}
	return counts
}

// partOf is the reference implementation of a part.
func partOf(counts map[string]int) string {
	var part strings.Builder
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&part, "%s\t%d\n", word, counts[word])
	}
	return part.String()
}

// resultOf is the reference implementation of the result.
func resultOf(counts map[string]int) string {
	words := slices.Collect(maps.Keys(counts))
	slices.SortFunc(words, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	var result strings.Builder
	for _, word := range words {
		fmt.Fprintf(&result, "%s\t%d\n", word, counts[word])
	}
	return result.String()
}

// mapWords counts the words of a source and returns them sorted.
func mapWords(counters wordCounters, source io.Reader) (string, error) {
	return mapWordsWith(counters, nil, source)
}

func mapWordsWith(counters wordCounters, settings bridgefour.Settings, source io.Reader) (string, error) {
	counter := counters.get()
	defer counters.put(counter)
	var lines []string
	task, err := hooks.Open(counting{counter, &lines})
	if err != nil {
		return "", err
	}
	if err := task.NewTask().Run(nil, &hooks.TaskSpec{Source: source, Input: "input", Settings: settings, Memory: 1 << 30}); err != nil { //nolint:staticcheck // it does not look at the context
		return "", err
	}
	slices.SortFunc(lines, func(a, b string) int { // a word may have bytes below that of the tab
		return strings.Compare(a[:strings.LastIndexByte(a, '\t')], b[:strings.LastIndexByte(b, '\t')])
	})
	return strings.Join(lines, ""), nil
}

// counting counts the words of its task.
type counting struct {
	counter *wordCounter
	lines   *[]string
}

func (counting) Name() string { return "counting" }

func (c counting) Map(_ context.Context, t *bridgefour.Task) error {
	flush := func() {
		for word, n := range c.counter.all() {
			*c.lines = append(*c.lines, fmt.Sprintf("%s\t%d\n", word, n))
		}
		c.counter.reset()
	}
	err := c.counter.count(t, flush)
	flush()
	return err
}

// seeds are difficult texts: words of about 8 and 16 bytes, control characters, all kinds of white space.
func seeds() []string {
	return []string{
		"", " ", "\n", "a", "the quick brown fox\njumps over the lazy dog the end",
		"1234567 12345678 123456789 123456789012345 1234567890123456 12345678901234567 1234567 1234567890123456",
		"a a\x00 a\x00\x00 \x00 \x00\x00 a a\x00", "abcdefgh abcdefgh\x00 abcdefgh\x01 abcdefghabcdefgh abcdefghabcdefgh\x00",
		"tab\tvt\vff\fcr\r\nnel\u0085nbsp\u00a0ogham\u1680en\u2000six\u2006thin\u2009hair\u200als\u2028ps\u2029nn\u202fmm\u205fid\u3000end",
		"zero\u200bwidth \u180emongolian \ufefffeff naïve naïve Łódź straße 世界\u3000世界 \u2014dash\u2014",
		"\xff \xfe\xff \xc2 \xc2\xa0x \xe2\x80 \xe2\x80\x8a \xe3\x80\x80\x80 a\xe2\xc2\xa0b \xa0 \x85",
		"\x01 \x1f\x1f \x08abc abc\x08 \x7f\x7f " + strings.Repeat("é", 8) + " " + strings.Repeat("é", 9),
	}
}

func FuzzWordCount(f *testing.F) {
	for _, text := range seeds() {
		f.Add([]byte(text))
	}
	counters := make(wordCounters, 1)
	f.Fuzz(func(t *testing.T, text []byte) {
		part, err := mapWords(counters, bytes.NewReader(text))
		if want := partOf(countWords(text)); err != nil || part != want {
			t.Fatalf("count(%q) = %q, %v, want %q", text, part, err, want)
		}
	})
}

// TestWordCountBlocks has words that cross the ends of reads and blocks.
func TestWordCountBlocks(t *testing.T) {
	counters := make(wordCounters, 1)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	letters := []string{"a", "b", "é", "\u00a0", "\u2003", "世", " ", "\n", "\x00", "\xe2", "\xc2", "e", "f", "g", "h", "i"}
	for range 3 {
		var text []byte
		for len(text) < 3*wordBlock {
			text = append(text, letters[random.IntN(len(letters))]...)
		}
		want := partOf(countWords(text))
		for name, source := range map[string]io.Reader{
			"blocks": bytes.NewReader(text),
			"halves": iotest.HalfReader(bytes.NewReader(text)),
			"eof":    iotest.DataErrReader(bytes.NewReader(text)),
			"uneven": &unevenReader{text, rand.New(rand.NewPCG(seed, 1))},
		} {
			if got, err := mapWords(counters, source); err != nil || got != want {
				t.Fatalf("seed %d, %s: Map() = %d bytes, %v, want %d bytes", seed, name, len(got), err, len(want))
			}
		}
	}
}

type unevenReader struct {
	text   []byte
	random *rand.Rand
}

func (r *unevenReader) Read(p []byte) (int, error) {
	if len(r.text) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1+r.random.IntN(20))], r.text)
	r.text = r.text[n:]
	return n, nil
}

// TestWordCountIsBounded: a counter of words that are all different is emptied before it takes more memory than the task has.
func TestWordCountIsBounded(t *testing.T) {
	const memory = 4 << 20
	for _, format := range []string{"%07d ", "%012d ", "%024d "} { // one for each table
		job := counting{newWordCounter(), new([]string)}
		task, err := hooks.Open(job)
		if err != nil {
			t.Fatal(err)
		}
		var text []byte
		const words = 300_000
		for i := range words {
			text = fmt.Appendf(text, format, i+1)
		}
		if err := task.NewTask().Run(t.Context(), &hooks.TaskSpec{Source: bytes.NewReader(text), Memory: memory}); err != nil {
			t.Fatal(err)
		}
		if got := job.counter.memory(); got > memory*5/4 || len(*job.lines) != words {
			t.Errorf("words like %s take %d bytes, want about %d; %d lines, want %d", format, got, memory, len(*job.lines), words)
		}
	}
}

// TestWordCountGrows counts more words of all kinds than the initial tables hold, and reuses a counter.
func TestWordCountGrows(t *testing.T) {
	counters := make(wordCounters, 1)
	var text []byte
	for i := range 120_000 {
		text = fmt.Appendf(text, "w%d middle-%07d a-rather-long-word-%d x\x02%d ", i%50_000, i%30_000, i%20_000, i%10_000)
	}
	for range 2 {
		if got, err := mapWords(counters, bytes.NewReader(text)); err != nil || got != partOf(countWords(text)) {
			t.Fatalf("Map() = %d bytes, %v, want what the oracle counts", len(got), err)
		}
		if got, err := mapWords(counters, strings.NewReader("one two one")); err != nil || got != "one\t2\ntwo\t1\n" {
			t.Fatalf("Map() = %q, %v after a larger text", got, err)
		}
	}
}

func TestWordCountLongWords(t *testing.T) {
	const limit = 1 << 20
	set := bridgefour.Settings{bridgefour.SettingRecordMax: "1MiB"}
	for _, counters := range []wordCounters{make(wordCounters, 1), nil} {
		longest := strings.Repeat("x", limit)
		if got, err := mapWordsWith(counters, set, iotest.HalfReader(strings.NewReader("a "+longest+" b "+longest))); err != nil || got != "a\t1\nb\t1\n"+longest+"\t2\n" {
			t.Errorf("Map() = %d bytes, %v, want a word of 1 MiB to be counted", len(got), err)
		}
		for _, end := range []string{"", " c", strings.Repeat("x", limit)} {
			_, err := mapWordsWith(counters, set, &offsetReader{r: strings.NewReader("a b " + longest + "x" + end)})
			want := "input: word at byte 4 exceeds 1048576 bytes; is this text? If it is, raise the limit with --set record_max=SIZE"
			if !bridgefour.IsBadInput(err) || err.Error() != want {
				t.Errorf("Map() = %v, want the bad input %q", err, want)
			}
		}
	}
	word := strings.Repeat("x", 5*limit)
	for _, set := range []bridgefour.Settings{nil, {bridgefour.SettingRecordMax: "0"}} {
		if got, err := mapWordsWith(nil, set, strings.NewReader(word)); err != nil || got != word+"\t1\n" {
			t.Errorf("%v: Map() = %d bytes, %v, want a word of 5 MiB to be counted", set, len(got), err)
		}
	}
}

// TestWordCountOneLine counts a line much longer than any buffer.
func TestWordCountOneLine(t *testing.T) {
	const words = 4 << 20
	line := io.LimitReader(&repeatReader{text: "word "}, 5*words)
	if got, err := mapWords(make(wordCounters, 1), line); err != nil || got != fmt.Sprintf("word\t%d\n", words) {
		t.Errorf("Map() = %q, %v, want %d", got, err, words)
	}
}

type repeatReader struct {
	text string
	at   int
}

func (r *repeatReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.text[r.at]
		r.at = (r.at + 1) % len(r.text)
	}
	return len(p), nil
}

type offsetReader struct {
	r  io.Reader
	at int64
}

func (o *offsetReader) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	o.at += int64(n)
	return n, err
}

func (o *offsetReader) Offset() int64 { return o.at }

func TestWordCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.SampledFrom(strings.Fields(strings.Join(seeds(), " ")+" "+strings.Repeat("y", 40))), 0, 300)
		total := make(map[string]int)
		var files []string
		for range rapid.IntRange(0, 20).Draw(t, "files") {
			var text strings.Builder
			for _, word := range words.Draw(t, "words") {
				n := rapid.SampledFrom([]int{1, 2, 500}).Draw(t, "n")
				text.WriteString(strings.Repeat(word+" ", n))
				total[word] += n
			}
			files = append(files, text.String())
		}
		input := bridgefourtest.Input{Files: files, Partitions: rapid.IntRange(1, 5).Draw(t, "partitions")}
		got, err := bridgefourtest.Run(t.Context(), WordCount(), input)
		if want := resultOf(total); err != nil || got.Text() != want {
			t.Fatalf("Run() = %q, %v, want %q", got.Text(), err, want)
		}
	})
}

func BenchmarkWordCount(b *testing.B) {
	text := bytes.Repeat([]byte("It was the best of times, it was the worst of times, it was the age of wisdom and incredulity.\n"), 100_000)
	counters := make(wordCounters, 1)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := mapWords(counters, bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
