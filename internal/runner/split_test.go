package runner

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/bridgefour/bridgefour"
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
	r.begin(context.Background(), split)
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

// TestSplitsOfLongLines uses lines longer than the read size.
func TestSplitsOfLongLines(t *testing.T) {
	var text strings.Builder
	random := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		text.WriteString(strings.Repeat("l", random.IntN(4*lineProbeMax)) + "\n")
	}
	text.WriteString(strings.Repeat("m", lineProbeMax))
	path := writeFile(t, t.TempDir(), "input", text.String())
	var r splitReader
	for _, size := range []int{lineProbe, lineProbeMax - 1, 3 * lineProbeMax} {
		checkSplits(t.Fatalf, &r, path, text.String(), "", size, 64<<10)
	}
}

func TestSplitOffset(t *testing.T) {
	text := "first\nsecond line\nthird\n"
	path := writeFile(t, t.TempDir(), "input", text)
	var r splitReader
	r.begin(t.Context(), fileSplit(path, 3, 9))
	var task bridgefour.Task
	task.Reset(&bridgefour.TaskSpec{Source: &r})
	records := task.Records()
	if !records.Scan() || string(records.Bytes()) != "second line" || records.Offset() != 6 {
		t.Errorf("first record = %q at %d, want the second line at 6", records.Bytes(), records.Offset())
	}
	if records.Scan() {
		t.Errorf("second record = %q, want none", records.Bytes())
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
	r.begin(ctx, wholeFile(path))
	cancel()
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("Read() = %v after cancel", err)
	}
	_, _ = r.finish()
}

// bzipHello is "hello bzip2\n", compressed by bzip2: the standard library only decompresses.
const bzipHello = "425a6839314159265359ab6ba1f1000002d9800010400010001264c01020003100d34d04001ea3ef4e51a2078bb9229c284855b5d0f880"

func compressed(t *testing.T, kind format, text string) string {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch kind {
	case gzipped:
		w = gzip.NewWriter(&out)
	case zstandard:
		var err error
		if w, err = zstd.NewWriter(&out); err != nil {
			t.Fatal(err)
		}
	case bzipped, plainText:
		t.Fatalf("nothing here writes %s", kind)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCompressedSplits(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("some text that compresses well\n", 10_000)
	bz := bzip(t)
	var r splitReader
	defer r.close()
	for _, test := range []struct{ name, file, want string }{
		{"a.gz", compressed(t, gzipped, text), text},
		{"two.gz", compressed(t, gzipped, text) + compressed(t, gzipped, "end"), text + "end"},
		{"none.gz", compressed(t, gzipped, ""), ""},
		{"a.zst", compressed(t, zstandard, text), text},
		{"two.zst", compressed(t, zstandard, text) + compressed(t, zstandard, "end"), text + "end"},
		{"again.gz", compressed(t, gzipped, "again"), "again"},
		{"a.bz2", bz, "hello bzip2\n"},
		{"two.bz2", bz + bz, "hello bzip2\nhello bzip2\n"},
		{"plain.gz.txt", "text", "text"},
	} {
		path := writeFile(t, dir, test.name, test.file)
		if got, err := readSplit(&r, wholeFile(path), 1000); err != nil || got != test.want {
			t.Errorf("%s = %d bytes, %v, want %d bytes", test.name, len(got), err, len(test.want))
		}
	}
}

func bzip(t *testing.T) string {
	t.Helper()
	data, err := hex.DecodeString(bzipHello)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCorruptSplits(t *testing.T) {
	dir := t.TempDir()
	var r splitReader
	defer r.close()
	for _, kind := range []format{gzipped, zstandard, bzipped} {
		whole := bzip(t)
		if kind != bzipped {
			whole = compressed(t, kind, strings.Repeat("some text\n", 5))
		}
		suffix := map[format]string{plainText: "", gzipped: ".gz", zstandard: ".zst", bzipped: ".bz2"}[kind]
		for name, text := range map[string]string{
			"empty":   "",
			"cut":     whole[:len(whole)-3],
			"halved":  whole[:len(whole)/2],
			"header":  whole[:2],
			"garbage": "this is no " + string(kind) + " file at all",
			"flipped": whole[:len(whole)-6] + string(whole[len(whole)-6]^0x55) + whole[len(whole)-5:],
		} {
			path := writeFile(t, dir, name+suffix, text)
			_, err := readSplit(&r, wholeFile(path), 1000)
			if !bridgefour.IsBadInput(err) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), string(kind)) {
				t.Errorf("%s %s: %v, want bad input that names the file", name, kind, err)
			}
		}
	}
}

// TestDecompressorInPieces reads from a source that returns one byte at a time.
func TestDecompressorInPieces(t *testing.T) {
	text := strings.Repeat("some text\n", 1000)
	for _, kind := range []format{gzipped, zstandard} {
		var d decompressor
		if err := d.begin(iotest.OneByteReader(strings.NewReader(compressed(t, kind, text))), kind); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(&d); err != nil || string(got) != text {
			t.Errorf("%s = %d bytes, %v", kind, len(got), err)
		}
		d.close()
	}
}
