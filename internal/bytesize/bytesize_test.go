package bytesize

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]uint64{
		"1": 1, "1B": 1, "65536": 65536, "1k": 1 << 10, "1K": 1 << 10, "1kb": 1 << 10, "1KiB": 1 << 10, "64MiB": 64 << 20, "64 MiB": 64 << 20,
		" 2g ": 2 << 30, "1.5GiB": 3 << 29, "0.5k": 512, "1T": 1 << 40, "0001k": 1 << 10, "0.001k": 1, "1.0": 1,
		"4194303.999999999999T": 4194303<<40 + 1<<40 - 2,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "0", "0k", "0.0001k", "-1", "+1", "x", "k", "MiB", "1x", "1kk", "1bk", "1ki", "1ib", "1.", ".5", "1.k", "1..2", "1.2.3", "1e3",
		"1,5G", "0x10", "1_000", "99999999999999999999", "9223372036854775807T", "8388608T", "1 2", "١", "none", "1\n2",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"64MiB", "1.5g", "9223372036854775807", "0.999999999999T", "-1", "8388607.9T"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := Parse(text)
		if err != nil {
			return
		}
		if size == 0 || size > 1<<63-1 {
			t.Errorf("Parse(%q) = %d", text, size)
		}
		if again, err := Parse(strings.ToUpper(text)); err != nil || again != size {
			t.Errorf("Parse of %q in upper case = %d, %v, want %d", text, again, err, size)
		}
	})
}
