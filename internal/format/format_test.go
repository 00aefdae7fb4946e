package format_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/bridgefour/bridgefour/internal/format"
)

// bzipHello is "hello bzip2\n", compressed by bzip2: the standard library only decompresses.
const bzipHello = "425a6839314159265359ab6ba1f1000002d9800010400010001264c01020003100d34d04001ea3ef4e51a2078bb9229c284855b5d0f880"

func unhex(tb testing.TB, text string) string {
	tb.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

func compress(tb testing.TB, w io.WriteCloser, out *bytes.Buffer, text string) string {
	tb.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

func gzipped(tb testing.TB, text string) string {
	tb.Helper()
	var out bytes.Buffer
	return compress(tb, gzip.NewWriter(&out), &out, text)
}

func zstandard(tb testing.TB, text string, window int) string {
	tb.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(window))
	if err != nil {
		tb.Fatal(err)
	}
	return compress(tb, w, &out, text)
}

// bgzf is one block of BGZF, and the empty one that ends a file.
func bgzf(tb testing.TB, text string) string {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Extra = []byte("BC\x02\x00\x00\x00")
	return compress(tb, w, &out, text)
}

func TestDetect(t *testing.T) {
	for _, test := range []struct {
		name, prefix string
		want         format.Format
	}{
		{"nothing", "", format.Text},
		{"text", "one line\n", format.Text},
		{"Latin-1", "caf\xe9\n", format.Text},
		{"a zero byte", "text\n" + strings.Repeat("x", 1000) + "\x00", format.Binary},
		{"gzip", gzipped(t, "text"), format.Gzip},
		{"zstd", zstandard(t, "text", 1<<20), format.Zstd},
		{"pzstd", "\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", format.Zstd},
		{"bzip2", unhex(t, bzipHello), format.Bzip2},
		{"text that begins like bzip2", "BZh9 is how a bzip2 file begins\n", format.Text},
		{"xz", "\xfd7zXZ\x00\x00", "xz"},
		{"zip", "PK\x03\x04\x14", "zip"},
		{"tar", strings.Repeat("f", 257) + "ustar\x0000", "tar"},
		{"Parquet", "PAR1\x15\x04", "Parquet"},
		{"Arrow", "ARROW1\x00\x00", "Arrow"},
		{"HDF5", "\x89HDF\r\n\x1a\n", "HDF5"},
		{"SQLite", "SQLite format 3\x00", "SQLite"},
		{"NumPy", "\x93NUMPY\x01\x00", "NumPy"},
		{"compressed BAM", bgzf(t, "BAM\x01\x00\x00"), "BAM"},
		{"compressed BCF", bgzf(t, "BCF\x02\x02"), "BCF"},
		{"compressed VCF", bgzf(t, "##fileformat=VCFv4.2\n"), format.Gzip},
		{"cut BGZF", bgzf(t, "BAM\x01")[:19], format.Gzip},
		{"UTF-16", "\xff\xfet\x00e\x00", format.UTF16},
		{"Latin-1 like UTF-16", "\xff\xfe\n", format.Text},
		{"UTF-8 with a BOM", "\xef\xbb\xbftext", format.Text},
	} {
		if got := format.Detect([]byte(test.prefix)); got != test.want {
			t.Errorf("Detect(%s) = %q, want %q", test.name, got, test.want)
		}
	}
}

func FuzzDetect(f *testing.F) {
	f.Add([]byte(bgzf(f, "BAM\x01")))
	f.Add([]byte(unhex(f, bzipHello)))
	f.Fuzz(func(_ *testing.T, prefix []byte) { format.Detect(prefix) })
}

// read decompresses data as its first bytes say, from a source that returns one byte at a time.
func read(d *format.Decoder, data string, window uint64) (string, error) {
	if err := d.Reset(iotest.OneByteReader(strings.NewReader(data)), format.Detect([]byte(data)), window); err != nil {
		return "", err
	}
	defer d.Release()
	text, err := io.ReadAll(d)
	if err == nil && d.Consumed() != uint64(len(data)) {
		err = errors.New("data is left")
	}
	return string(text), err
}

func TestDecoder(t *testing.T) {
	text := strings.Repeat("some text that compresses well\n", 10_000)
	gz, zs, bz := gzipped(t, text), zstandard(t, text, 1<<20), unhex(t, bzipHello)
	var d format.Decoder
	defer d.Close()
	for _, test := range []struct{ name, data, want string }{
		{"gzip", gz, text},
		{"two members", gz + gzipped(t, "end"), text + "end"},
		{"empty members", gzipped(t, "") + gzipped(t, "") + gzipped(t, "end"), "end"},
		{"an empty member", gzipped(t, ""), ""},
		{"zero padding", gz + strings.Repeat("\x00", 1000), text},
		{"zstd", zs, text},
		{"two frames", zs + zstandard(t, "end", 1<<20), text + "end"},
		{"a skippable frame", "\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + zs, text},
		{"bzip2", bz, "hello bzip2\n"},
		{"two streams", bz + bz, "hello bzip2\nhello bzip2\n"},
		{"a small file after all", gzipped(t, "again"), "again"},
	} {
		if got, err := read(&d, test.data, 0); err != nil || got != test.want {
			t.Errorf("%s = %d bytes, %v, want %d bytes", test.name, len(got), err, len(test.want))
		}
	}
}

func TestDecoderErrors(t *testing.T) {
	text := strings.Repeat("some text\n", 100)
	var d format.Decoder
	defer d.Close()
	for f, whole := range map[format.Format]string{ //nolint:exhaustive // the compressed ones
		format.Gzip:  gzipped(t, text),
		format.Zstd:  zstandard(t, text, 1<<20),
		format.Bzip2: unhex(t, bzipHello),
	} {
		for _, test := range []struct{ name, data, want string }{
			{"cut", whole[:len(whole)-3], io.ErrUnexpectedEOF.Error()},
			{"halved", whole[:len(whole)/2], io.ErrUnexpectedEOF.Error()},
			{"flipped", whole[:len(whole)-6] + string(whole[len(whole)-6]^0x55) + whole[len(whole)-5:], ""},
			{"garbage behind", whole + "garbage behind it", "trailing garbage"},
			{"garbage behind zero bytes", whole + "\x00\x00\x00\x00garbage", "trailing garbage"},
		} {
			if _, err := read(&d, test.data, 0); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s %s: %v, want %q", f, test.name, err, test.want)
			}
		}
	}
}

// TestWindow reads a frame with a large window: it needs permission, and the memory is released.
func TestWindow(t *testing.T) {
	data := zstandard(t, strings.Repeat("\x00", 300<<20), 256<<20)
	var d format.Decoder
	defer d.Close()
	_, err := read(&d, data, 0)
	if large, ok := errors.AsType[*format.WindowError](err); !ok || large.Window != 256<<20 || large.Max != 128<<20 {
		t.Errorf("a window of 256 MiB: %v, want a WindowError", err)
	}
	_, err = read(&d, zstandard(t, "small first", 1<<20)+data, 0)
	if large, ok := errors.AsType[*format.WindowError](err); !ok || large.Max != 128<<20 {
		t.Errorf("a window of 256 MiB in the second frame: %v, want a WindowError", err)
	}
	if err := d.Reset(strings.NewReader(data), format.Zstd, 256<<20); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, &d); n != 300<<20 || err != nil {
		t.Errorf("with permission: %d bytes, %v", n, err)
	}
	d.Release()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if memory.HeapAlloc > 64<<20 {
		t.Errorf("%d MiB are in use after Release", memory.HeapAlloc>>20)
	}
}

// TestTools reads what the tools write, if they are installed.
func TestTools(t *testing.T) {
	text := strings.Repeat("some text\n", 10_000)
	var d format.Decoder
	defer d.Close()
	for _, argv := range [][]string{{"gzip", "-c"}, {"zstd", "-c"}, {"zstd", "-c", "--long=27"}, {"bzip2", "-c"}} {
		if _, err := exec.LookPath(argv[0]); err != nil {
			continue
		}
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(text)
		data, err := cmd.Output()
		if err != nil {
			t.Fatal(argv, err)
		}
		if got, err := read(&d, string(data), 0); err != nil || got != text {
			t.Errorf("%q = %d bytes, %v", argv, len(got), err)
		}
	}
}
