package wire

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	noise := make([]byte, TailMax)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	long := strings.Repeat("0123456789abcde\n", 2*TailMax/16)
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, ""},
		{"short", []byte("a\nb"), "a\nb"},
		{"long", []byte(long[1:]), "… 65551 bytes cut …\n" + long[:TailMax-16]},
		{"one long line", []byte(strings.Repeat("x", 2*TailMax) + "\n"), "… 65537 bytes cut …\n" + strings.Repeat("x", TailMax-1) + "\n"},
		{"incompressible", noise, string(noise)},
	} {
		tail, err := NewTail(c.in, uint64(len(c.in)), nil, 1)
		if err != nil || len(tail.GetLog()) > TailBytesMax {
			t.Errorf("%s: NewTail() = %d bytes, %v, want at most %d", c.name, len(tail.GetLog()), err, TailBytesMax)
			continue
		}
		got, err := TailText(tail.GetLog(), tail.GetLogBytes())
		if err != nil || string(got) != c.want {
			t.Errorf("%s: TailText() = %d bytes, %v, want %d", c.name, len(got), err, len(c.want))
		}
	}
	if tail, err := NewTail(nil, 0, nil, 0); tail != nil || err != nil {
		t.Errorf("NewTail() of nothing = %v, %v, want nil", tail, err)
	}
	bomb, err := NewTail(bytes.Repeat([]byte{0}, TailMax), TailMax, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var twice []byte
	twice = append(append(twice, bomb.GetLog()...), bomb.GetLog()...)
	if text, err := TailText(twice, TailMax); err == nil {
		t.Errorf("TailText() of %d bytes succeeds with %d, want an error beyond the limit", len(twice), len(text))
	}
}
