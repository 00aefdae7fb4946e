package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestDescribeInput: the names of several files are a list, as long as a page allows.
func TestDescribeInput(t *testing.T) {
	long := strings.Repeat("x", inputBytesMax)
	files := state.NewFiles(0)
	files.AddFile([]byte("/one\ntwo"), state.Version{Size: 1}, true)
	for _, names := range [][]string{{"/a\nb", "/c"}, {"/d", "/" + long, "/e"}, {"/" + long, "/f"}} {
		var pack []state.Split
		for _, name := range names {
			pack = append(pack, state.Split{Path: []byte(name), Version: state.Version{Size: 1}})
		}
		files.Pack(pack)
	}
	files.AddFile([]byte("/"+long), state.Version{Size: 1}, true)
	in, err := files.Input()
	if err != nil {
		t.Fatal(err)
	}
	page, reader := &wire.PartsPage{}, state.NewInputReader(&in)
	for task := range in.Tasks {
		describeInput(page, partname.Reads(reader, task))
	}
	cut := "/" + long[:inputBytesMax-len("/…")] + "…"
	want := []string{`"/one\ntwo" [] 0`, `"" ["/a\nb" "/c"] 0`, `"" ["/d"] 2`, fmt.Sprintf(`"" [%q] 1`, cut), fmt.Sprintf(`%q [] 0`, cut)}
	for i, want := range want {
		several := wire.Entry(page.GetInputs(), i)
		if got := fmt.Sprintf("%q %q %d", page.GetInput()[i], several.GetName(), several.GetMore()); got != want {
			t.Errorf("task %d reads %s, want %s", i, got, want)
		}
	}
}
