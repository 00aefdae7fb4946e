package runner

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/hooks"
	"github.com/bridgefour/bridgefour/internal/record"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func writeFile(tb testing.TB, dir, name, text string) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// readSplit reads a split in pieces of at most the given size.
func readSplit(r *splitReader, split *wire.Split, size int) (string, error) {
	r.begin(context.Background(), reading{kind: record.Lines}, split, false)
	defer func() { _, _ = r.finish() }()
	var text []byte
	piece := make([]byte, size)
	for {
		n, err := r.Read(piece)
		text = append(text, piece[:n]...)
		if errors.Is(err, io.EOF) {
			return string(text), nil
		}
		if err != nil {
			return string(text), err
		}
	}
}

// ownedLines returns the lines that start in [from, to).
func ownedLines(text string, from, to int) string {
	var owned strings.Builder
	at := 0
	for line := range strings.Lines(text) {
		if at >= from && at < to {
			owned.WriteString(line)
		}
		at += len(line)
	}
	return owned.String()
}

// checkSplits cuts text into splits, appends more to the file, and reads the splits in pieces.
func checkSplits(fatalf func(string, ...any), r *splitReader, path, text, more string, size, piece int) {
	var all strings.Builder
	var splits []*wire.Split
	for from := 0; from < len(text); from += size {
		splits = append(splits, fileSplit(path, int64(from), int64(min(size, len(text)-from))))
	}
	if err := appendTo(path, more); err != nil {
		fatalf("%v", err)
	}
	for i, split := range splits {
		from, length := i*size, int(split.GetFile().GetLength())
		got, err := readSplit(r, split, piece)
		if want := ownedLines(text, from, from+length); err != nil || got != want {
			fatalf("split [%d, %d) of %.100q in pieces of %d = %.100q, %v, want %.100q", from, from+length, text, piece, got, err, want)
			return
		}
		all.WriteString(got)
	}
	if all.String() != text {
		fatalf("the splits of %.100q by %d together = %.100q", text, size, all.String())
	}
}

func TestSplitsAreTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "input")
	var r splitReader
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"\n", "a", "bc", "\r\n", "\xff", strings.Repeat("x", 50)})).Draw(t, "text"), "")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		size := rapid.IntRange(1, len(text)+2).Draw(t, "size")
		checkSplits(t.Fatalf, &r, path, text, rapid.SampledFrom([]string{"", "more", "\nmore\n"}).Draw(t, "more"), size, rapid.IntRange(1, 100).Draw(t, "piece"))
	})
}

func FuzzSplits(f *testing.F) {
	f.Add("", 1, 1)
	f.Add("\n", 1, 1)
	f.Add("one\ntwo\n\nthree", 4, 3)
	f.Add("no line end at all", 5, 100)
	path := filepath.Join(f.TempDir(), "input")
	var r splitReader
	f.Fuzz(func(t *testing.T, text string, size, piece int) {
		if size < 1 || piece < 1 || piece > 1<<20 || len(text)/size > 1000 {
			return
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		checkSplits(t.Fatalf, &r, path, text, "more", size, piece)
	})
}

func TestSplitOffset(t *testing.T) {
	text := "first\nsecond line\nthird\n"
	path := writeFile(t, t.TempDir(), "input", text)
	var r splitReader
	r.begin(t.Context(), reading{kind: record.Lines}, fileSplit(path, 3, 9), false)
	program, err := hooks.Open(testJob{mapTask: func(_ context.Context, task *bridgefour.Task) error {
		records := task.Records()
		if !records.Scan() || string(records.Bytes()) != "second line" || records.Offset() != 6 {
			t.Errorf("first record = %q at %d, want the second line at 6", records.Bytes(), records.Offset())
		}
		if records.Scan() {
			t.Errorf("second record = %q, want none", records.Bytes())
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := program.NewTask().Run(t.Context(), &hooks.TaskSpec{Source: &r}); err != nil {
		t.Error(err)
	}
	if n, err := r.finish(); err != nil || n != uint64(len("second line\n")) {
		t.Errorf("finish() = %d bytes read, %v, want 12", n, err)
	}
}

func TestSplitOfAnItem(t *testing.T) {
	var r splitReader
	for _, piece := range []int{1, 2, 100} {
		for _, item := range []string{"", "a", "two words\xff\x00"} {
			if got, err := readSplit(&r, itemSplit(item), piece); err != nil || got != item+"\n" {
				t.Errorf("readSplit(%q) = %q, %v", item, got, err)
			}
		}
	}
}

func TestSplitErrors(t *testing.T) {
	dir := t.TempDir()
	r := splitReader{host: "here"}
	gone := filepath.Join(dir, "gone \xff\n")
	_, err := readSplit(&r, wholeFile(gone), 10)
	if !bridgefour.IsBadInput(err) || !strings.Contains(err.Error(), `gone \xff\n": no such file or directory on here`) {
		t.Errorf("a file that is gone: %v, want bad input that names it", err)
	}
	if _, err := readSplit(&r, wholeFile(dir), 10); !bridgefour.IsBadInput(err) || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a folder: %v, want bad input", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	path := writeFile(t, dir, "input", "text")
	r.begin(ctx, reading{kind: record.Lines}, wholeFile(path), false)
	cancel()
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("Read() = %v after cancel", err)
	}
	_, _ = r.finish()
}

func gzipped(tb testing.TB, text string) string {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.WriteString(w, text); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

func zstandard(tb testing.TB, text string) string {
	tb.Helper()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return string(encoder.EncodeAll([]byte(text), nil))
}

// TestFormats reads whole files: their first bytes say what they are, not their names.
func TestFormats(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("some text that compresses well\n", 10_000)
	var r splitReader
	defer r.close()
	for _, test := range []struct{ name, file, want string }{
		{"a.gz", gzipped(t, text), text},
		{"no suffix", gzipped(t, text), text},
		{"none.gz", gzipped(t, ""), ""},
		{"padded.gz", gzipped(t, text) + "\x00\x00\x00", text},
		{"text.gz", "text\n", "text\n"},
		{"archive.zip", "PK\x03\x04\x00", "PK\x03\x04\x00"},
		{"mark.txt", "\xef\xbb\xbftext", "\xef\xbb\xbftext"},
	} {
		path := writeFile(t, dir, test.name, test.file)
		if got, err := readSplit(&r, wholeFile(path), 1000); err != nil || got != test.want {
			t.Errorf("%s = %d bytes, %v, want %d bytes", test.name, len(got), err, len(test.want))
		}
	}
}

func TestBadFormats(t *testing.T) {
	dir := t.TempDir()
	window, err := hex.DecodeString("28b52ffd00b0010000") // 4 GiB
	if err != nil {
		t.Fatal(err)
	}
	whole := gzipped(t, strings.Repeat("some text\n", 5))
	var r splitReader
	defer r.close()
	for _, test := range []struct{ name, file, want string }{
		{"cut", whole[:len(whole)-3], "bad gzip data after 50 bytes of text: the file ends too early"},
		{"magic", whole[:2], "bad gzip data after 0 bytes of text: the file ends too early"},
		{"flipped", whole[:len(whole)-6] + string(whole[len(whole)-6]^0x55) + whole[len(whole)-5:], "bad gzip data after 50 bytes"},
		{"trailing", whole + "more", "bad gzip data after 50 bytes of text: trailing garbage"},
		{"empty.gz", "", "its name is that of a compressed file, but it is empty"},
		{"binary.ZST", "\x00\x01", "nor text"},
		{"x", "\xfd7zXZ\x00\x00", "xz is not read directly: decompress it first, or run a command that does"},
		{"long", string(window), "its window of 4096 MiB exceeds the limit of 128 MiB; if a slot may take that much memory, allow it with --set zstd_window_max=4096MiB"},
	} {
		path := writeFile(t, dir, test.name, test.file)
		_, err := readSplit(&r, wholeFile(path), 1000)
		if !bridgefour.IsBadInput(err) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want bad input that names the file, with %q", test.name, err, test.want)
		}
	}
}

// knownSplits returns the splits of a file as the leader makes them, at the given offsets.
func knownSplits(tb testing.TB, path string, cuts []int64) []*wire.Split {
	tb.Helper()
	info, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	var splits []*wire.Split
	for i, from := range cuts {
		to := info.Size()
		if i+1 < len(cuts) {
			to = cuts[i+1]
		}
		s := fileSplit(path, from, to-from)
		s.GetFile().Size, s.GetFile().ModifiedUnixNs = uint64(info.Size()), info.ModTime().UnixNano()
		splits = append(splits, s)
	}
	return splits
}

// TestHeaders reads files with a header: commands get it with each split, built-in jobs apart from it.
func TestHeaders(t *testing.T) {
	dir := t.TempDir()
	var r splitReader
	defer r.close()
	const mark = "\xef\xbb\xbf"
	for _, test := range []struct {
		records, text string
		header        int
		cuts          []int64
		head          string
		want          []string
	}{
		{"lines", "h\na\nbb\nc", 1, []int64{0, 3, 5}, "h\n", []string{"a\n", "bb\n", "c"}},
		{"lines", "head\na\n", 1, []int64{0, 1, 2, 6}, "head\n", []string{"", "", "a\n", ""}},
		{"lines", "h\n", 3, []int64{0, 1}, "h\n", []string{"", ""}},
		{"lines", "h\na\n", 1, []int64{0}, "h\n", []string{"a\n"}},
		{"lines", gzipped(t, "h\na\n"), 1, []int64{0}, "h\n", []string{"a\n"}},
		{"start:^A", "h\nb\nA\nb\nA\n", 1, []int64{0, 4, 7}, "h\n", []string{"b\n", "A\nb\n", "A\n"}},
		{"csv", mark + "h,\"\n\"\n\"\na\"\nb\n", 1, []int64{0, 14}, "h,\"\n\"\n", []string{"\"\na\"\n", "b\n"}},
		{"csv", mark + "a\nb\n", 0, []int64{0, 5}, "", []string{"a\n", "b\n"}},
		{"csv", mark + "a\n", 0, []int64{0}, "", []string{"a\n"}},
		{"csv", gzipped(t, mark+"h\na\n"), 1, []int64{0}, "h\n", []string{"a\n"}},
		{"jsonl", mark + "1\n2\n", 0, []int64{0, 1, 4}, "", []string{"1\n", "", "2\n"}},
		{"fixed:2", "abcd", 0, []int64{0, 2}, "", []string{"ab", "cd"}},
		{"fixed:2", "\x1f\x8bcd", 0, []int64{0}, "", []string{"\x1f\x8bcd"}},
		{"fasta", ">a\nA\n>b\nC\n>c\nG\n", 0, []int64{0, 2, 9}, "", []string{">a\nA\n", ">b\nC\n", ">c\nG\n"}},
	} {
		kind, err := record.Parse(test.records)
		if err != nil {
			t.Fatal(err)
		}
		path := writeFile(t, dir, "input", test.text)
		how := reading{kind: kind, header: test.header}
		for i, split := range knownSplits(t, path, test.cuts) {
			for _, heads := range []bool{false, true} {
				want := test.want[i]
				if heads {
					want = test.head + want
				}
				r.begin(t.Context(), how, split, heads)
				if header, err := r.Header(); !heads && (err != nil || string(header) != test.head) {
					t.Errorf("%s: Header() of split %d of %q = %q, %v, want %q", test.records, i, test.text, header, err, test.head)
				}
				got, err := io.ReadAll(&r)
				if err != nil || string(got) != want {
					t.Errorf("%s: split %d of %q at %v = %q, %v, want %q", test.records, i, test.text, test.cuts, got, err, want)
				}
				if _, err := r.finish(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestBadRecords reads a part of a file that is not of the kind that the job says.
func TestBadRecords(t *testing.T) {
	path := writeFile(t, t.TempDir(), "input", "@a\nN\nN\n+\nII\n@b\nN\n+\nI\n")
	kind, err := record.Parse("fastq")
	if err != nil {
		t.Fatal(err)
	}
	var r splitReader
	r.begin(t.Context(), reading{kind: kind}, knownSplits(t, path, []int64{0, 5})[0], false)
	if _, err := io.ReadAll(&r); !bridgefour.IsBadInput(err) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "line 3 of the record, at byte 5, does not begin with +") {
		t.Errorf("reading FASTQ with a sequence of two lines: %v, want bad input", err)
	}
	if kind, err = record.Parse("fixed:8"); err != nil {
		t.Fatal(err)
	}
	r.begin(t.Context(), reading{kind: kind}, wholeFile(path), false)
	if _, err := io.ReadAll(&r); !bridgefour.IsBadInput(err) || !strings.Contains(err.Error(), "21 bytes are not a multiple of the 8 of a record") {
		t.Errorf("reading half a record: %v, want bad input", err)
	}
	_, _ = r.finish()
	path = writeFile(t, t.TempDir(), "header", strings.Repeat("x", 2<<20)+"\na\n")
	for i, split := range knownSplits(t, path, []int64{0, 2 << 20}) {
		r.begin(t.Context(), reading{kind: record.Lines, header: 1}, split, false)
		if _, err := io.ReadAll(&r); !bridgefour.IsBadInput(err) || !strings.Contains(err.Error(), "header") {
			t.Errorf("reading split %d behind a header of 2 MiB: %v, want bad input", i, err)
		}
		_, _ = r.finish()
	}
	r.close()
}

// TestInputBytes counts each byte of a file once, whatever the splits repeat.
func TestInputBytes(t *testing.T) {
	text := "header\na\nb\nc\n"
	path := writeFile(t, t.TempDir(), "input", text)
	var r splitReader
	var sum uint64
	for _, split := range knownSplits(t, path, []int64{0, 3, 6, 9, 12}) {
		r.begin(t.Context(), reading{kind: record.Lines, header: 1}, split, true)
		if _, err := io.Copy(io.Discard, &r); err != nil {
			t.Fatal(err)
		}
		n, err := r.finish()
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum != uint64(len(text)) {
		t.Errorf("%d bytes read of %d", sum, len(text))
	}
}
