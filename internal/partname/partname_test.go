package partname

import (
	"fmt"
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
)

// TestReads: a file whose name has a line end is one file.
func TestReads(t *testing.T) {
	files := state.NewFiles(10)
	for _, name := range []string{"/a", "/b\nc"} {
		files.AddFile([]byte(name), state.Version{Size: 12}, false)
	}
	files.Pack([]state.Split{{Path: []byte("/d\ne"), Version: state.Version{Size: 2}}, {Path: []byte("/f"), Version: state.Version{Size: 3}}})
	in, err := files.Input()
	if err != nil {
		t.Fatal(err)
	}
	r := state.NewInputReader(&in)
	for task, want := range []string{`1 ["/a"] 0 10`, `1 ["/a"] 10 2`, `1 ["/b\nc"] 0 10`, `1 ["/b\nc"] 10 2`, `2 ["/d\ne" "/f"] 0 5`} {
		got := Reads(r, uint64(task))
		if text := fmt.Sprintf("%d %q %d %d", got.Len(), got.Names(), got.Offset, got.Length); text != want {
			t.Errorf("Reads(%d) = %s, want %s", task, text, want)
		}
	}
	if got := Reads(r, 99); got.Len() != 0 {
		t.Errorf("a task that there is not reads %q", got.Names())
	}
}

func TestReadsItems(t *testing.T) {
	for want, s := range map[string]state.Split{
		`1 ["x"]`:              {Item: []byte("x")},
		`1 ["x\ty"]`:           {Values: [][]byte{[]byte("x"), []byte("y")}, Columns: 2},
		`2 ["x\ty" "1\n2\tz"]`: {Values: [][]byte{[]byte("x"), []byte("y"), []byte("1\n2"), []byte("z")}, Columns: 2},
		`3 ["x" "y" "z"]`:      {Values: [][]byte{[]byte("x"), []byte("y"), []byte("z")}, Columns: 1},
		`0 []`:                 {},
	} {
		r := Reading{split: s}
		if got := fmt.Sprintf("%d %q", r.Len(), r.Names()); got != want {
			t.Errorf("a reading of %+v has %s, want %s", s, got, want)
		}
	}
}
