package runner

import (
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/bridgefour/bridgefour/internal/wire"
)

func builtin(name string) *wire.Program {
	return &wire.Program{Kind: &wire.Program_Builtin{Builtin: name}}
}

func commandProgram(argv ...string) *wire.Program {
	c := &wire.Command{}
	for _, arg := range argv {
		c.Argv = append(c.Argv, []byte(arg))
	}
	return &wire.Program{Kind: &wire.Program_Command{Command: c}}
}

func fileSplit(path string, offset, length int64) *wire.Split {
	return &wire.Split{Kind: &wire.Split_File{File: &wire.FileSplit{
		Path: []byte(path), Offset: uint64(offset), Length: uint64(length),
	}}}
}

func wholeFile(path string) *wire.Split {
	return &wire.Split{Kind: &wire.Split_File{File: &wire.FileSplit{Path: []byte(path), Whole: true}}}
}

func itemSplit(item string) *wire.Split {
	return &wire.Split{Kind: &wire.Split_Item{Item: []byte(item)}}
}

// fileSplits cuts the files of a folder.
func fileSplits(tb testing.TB, dir string, size int64) []*wire.Split {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		tb.Fatal(err)
	}
	var splits []*wire.Split
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			tb.Fatal(err)
		}
		for at := int64(0); at < st.Size(); at += size {
			splits = append(splits, fileSplit(path, at, min(size, st.Size()-at)))
		}
	}
	return splits
}

// partsOf gives the outcomes' files to a collect stage.
func partsOf(outcomes []Outcome) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for i, out := range outcomes {
			if !yield(Part{Index: uint64(i), Path: out.File, Size: out.Size, Records: out.Records}, nil) {
				return
			}
		}
	}
}
