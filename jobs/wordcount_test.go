package jobs

import (
	"bytes"
	"cmp"
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

func mapWords(job WordCount, source io.Reader) (string, error) {
	var part strings.Builder
	task := newTask(job)
	if err := task.Run(nil, &hooks.TaskSpec{Source: source, Output: &part, Input: "input"}); err != nil { //nolint:staticcheck // it does not look at the context
		return "", err
	}
	_, err := task.Finish()
	return part.String(), err
}

func newTask(job WordCount) hooks.Task {
	p, err := hooks.Open(job)
	if err != nil {
		panic(err)
	}
	return p.NewTask()
}

func collectWords(job WordCount, settings bridgefour.Settings, parts ...string) (result string, kept bool, err error) {
	var out strings.Builder
	_, kept, err = newTask(job).Collect(nil, &hooks.CollectionSpec{Settings: settings, Output: &out, Parts: func(yield func(hooks.PartSpec, error) bool) { //nolint:staticcheck // as above
		for i, part := range parts {
			if !yield(hooks.PartSpec{Index: uint64(i), Size: int64(len(part)), Source: strings.NewReader(part)}, nil) {
				return
			}
		}
	}})
	return out.String(), kept, err
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
	job := NewWordCount()
	f.Fuzz(func(t *testing.T, text []byte) {
		counts := countWords(text)
		part, err := mapWords(job, bytes.NewReader(text))
		if want := partOf(counts); err != nil || part != want {
			t.Fatalf("Map(%q) = %q, %v, want %q", text, part, err, want)
		}
		result, kept, err := collectWords(job, nil, part)
		if want := resultOf(counts); err != nil || result != want || !kept {
			t.Errorf("Collect(%q) = %q, %v, %v, want %q", part, result, kept, err, want)
		}
	})
}

// TestWordCountBlocks has words that cross the ends of reads and blocks.
func TestWordCountBlocks(t *testing.T) {
	job := NewWordCount()
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
			if got, err := mapWords(job, source); err != nil || got != want {
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

// TestWordCountGrows counts more words of all kinds than the initial tables hold, and reuses a counter.
func TestWordCountGrows(t *testing.T) {
	job := NewWordCount()
	var text []byte
	for i := range 120_000 {
		text = fmt.Appendf(text, "w%d middle-%07d a-rather-long-word-%d x\x02%d ", i%50_000, i%30_000, i%20_000, i%10_000)
	}
	for range 2 {
		if got, err := mapWords(job, bytes.NewReader(text)); err != nil || got != partOf(countWords(text)) {
			t.Fatalf("Map() = %d bytes, %v, want what the oracle counts", len(got), err)
		}
		if got, err := mapWords(job, strings.NewReader("one two one")); err != nil || got != "one\t2\ntwo\t1\n" {
			t.Fatalf("Map() = %q, %v after a larger text", got, err)
		}
	}
}

func TestWordCountLongWords(t *testing.T) {
	job := NewWordCount()
	longest := strings.Repeat("x", wordMax-1)
	if got, err := mapWords(job, strings.NewReader("a "+longest+" b "+longest)); err != nil || got != "a\t1\nb\t1\n"+longest+"\t2\n" {
		t.Errorf("Map() = %d bytes, %v, want a word of 1 MiB to be counted", len(got), err)
	}
	tooLong := &offsetReader{r: strings.NewReader("a b " + strings.Repeat("x", 3*wordMax))}
	_, err := mapWords(job, tooLong)
	if want := "input: word at byte 4 exceeds 1048576 bytes; is this text?"; !bridgefour.IsBadInput(err) || err.Error() != want {
		t.Errorf("Map() = %v, want the bad input %q", err, want)
	}
}

// TestWordCountOneLine counts a line much longer than any buffer.
func TestWordCountOneLine(t *testing.T) {
	const words = 4 << 20
	line := io.LimitReader(&repeatReader{text: "word "}, 5*words)
	if got, err := mapWords(NewWordCount(), line); err != nil || got != fmt.Sprintf("word\t%d\n", words) {
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

func TestWordCountCollect(t *testing.T) {
	job := NewWordCount()
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.SampledFrom(strings.Fields(strings.Join(seeds(), " ")+" "+strings.Repeat("y", 40))), 0, 300)
		total := make(map[string]int)
		var parts []string
		for range rapid.IntRange(0, 40).Draw(t, "parts") {
			counts := make(map[string]int)
			for _, word := range words.Draw(t, "words") {
				n := rapid.SampledFrom([]int{1, 2, 1023, 1024, 5000}).Draw(t, "n")
				counts[word] += n
				total[word] += n
			}
			parts = append(parts, partOf(counts))
		}
		got, kept, err := collectWords(job, nil, parts...)
		if want := resultOf(total); err != nil || !kept || got != want {
			t.Fatalf("Collect() = %q, %v, %v, want %q", got, kept, err, want)
		}
	})
}

func TestWordCountCollectErrors(t *testing.T) {
	job := NewWordCount()
	for part, want := range map[string]string{
		"a\t1\nb\n":                 `part 1: invalid line "b": want KEY<TAB>COUNT`,
		"a\t1\nb\t\n":               `part 1: invalid line "b\t": want KEY<TAB>COUNT`,
		"a\t1x\n":                   `part 1: invalid line "a\t1x": want KEY<TAB>COUNT`,
		"b\t1\na\t1\n":              "part 1 is not sorted: another program has written to it",
		"b\t1\nb\t1\n":              "part 1 is not sorted: another program has written to it",
		"b\t-1\n":                   `part 1: invalid line "b\t-1": want KEY<TAB>COUNT`,
		"b\t12345678901234567890\n": `part 1: invalid line "b\t12345678901234567890": want KEY<TAB>COUNT`,
	} {
		if _, kept, err := collectWords(job, nil, "a\t1\n", part); err == nil || err.Error() != want || kept {
			t.Errorf("Collect(%q) = %v, %v, want %s", part, kept, err, want)
		}
	}
	if got, kept, err := collectWords(job, nil, "b\t999999999999999999\n"); err != nil || !kept || got != "b\t999999999999999999\n" {
		t.Errorf("Collect() = %q, %v, %v, want the largest count", got, kept, err)
	}
}

func TestWordCountCollectLimit(t *testing.T) {
	job := NewWordCount()
	var parts []string
	var text []byte
	for i := range 10 {
		var words []byte
		for j := range 1000 {
			words = fmt.Appendf(words, "w%d ", i*500+j)
		}
		text = append(text, words...)
		parts = append(parts, partOf(countWords(words)))
	}
	want := resultOf(countWords(text))
	fits := bridgefour.Settings{bridgefour.SettingResultMax: fmt.Sprint(len(want))}
	if got, kept, err := collectWords(job, fits, parts...); err != nil || !kept || got != want {
		t.Errorf("Collect() = %d bytes, %v, %v, want %d bytes", len(got), kept, err, len(want))
	}
	tooSmall := bridgefour.Settings{bridgefour.SettingResultMax: fmt.Sprint(len(want) - 1)}
	if _, kept, err := collectWords(job, tooSmall, parts...); err != nil || kept {
		t.Errorf("Collect() = %v, %v, want the parts to be the result", kept, err)
	}
}

func BenchmarkWordCount(b *testing.B) {
	text := bytes.Repeat([]byte("It was the best of times, it was the worst of times, it was the age of wisdom and incredulity.\n"), 100_000)
	job := NewWordCount()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := mapWords(job, bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
