package runner

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// packSplit is a split of files that share a task, planned with them as they are now.
func packSplit(paths ...string) *wire.Split {
	files := &wire.Files{}
	for _, path := range paths {
		size := int64(0)
		if info, err := os.Stat(path); err == nil {
			size = info.Size()
		}
		files.List = append(files.List, fileSplit(path, 0, size).GetFile())
	}
	return &wire.Split{Kind: &wire.Split_Files{Files: files}}
}

// showFiles writes the lines of a file with its name, their offsets and its header.
func showFiles(_ context.Context, t *bridgefour.Task) error {
	header, err := t.Header()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(t.Out(), "%s %q\n", filepath.Base(t.Input()), header); err != nil {
		return err
	}
	for records := t.Records(); records.Scan(); {
		if _, err := fmt.Fprintf(t.Out(), "%d %s\n", records.Offset(), records.Bytes()); err != nil {
			return err
		}
	}
	return t.Records().Err()
}

// TestPacked: no record spans two files, and each has its header, its offsets and its format.
func TestPacked(t *testing.T) {
	dir := t.TempDir()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write([]byte("head c\nfrom gzip\nno end"))
	_ = w.Close()
	split := packSplit(
		writeFile(t, dir, "a", "head a\none\ntwo"), writeFile(t, dir, "b", ""), writeFile(t, dir, "c.gz", packed.String()),
		writeFile(t, dir, "d", "head d"), writeFile(t, dir, "e", "head e\nthree\n"),
	)
	f := newBuiltin(t, &wire.Job{Header: 1}, showFiles)
	const want = `a "head a\n"
7 one
11 two
b ""
c.gz "head c\n"
7 from gzip
17 no end
d "head d"
e "head e\n"
7 three
`
	out := f.run(t.Context(), split)
	f.want(out, want)
	size := uint64(0)
	for _, file := range split.GetFiles().GetList() {
		size += file.GetSize()
	}
	if out.InputBytes != size {
		t.Errorf("Run().InputBytes = %d, want %d", out.InputBytes, size)
	}
	f.want(f.run(t.Context(), itemSplit("item")), ". \"\"\n0 item\n")
}

// TestPackedReadAhead: a Map that leaves a rest of each file is called for each of them, and one that goes on to the next file itself is not.
func TestPackedReadAhead(t *testing.T) {
	dir := t.TempDir()
	split := packSplit(writeFile(t, dir, "a", "1\n2\n"), writeFile(t, dir, "b", "3\n4\n"), writeFile(t, dir, "c", "5\n6\n"))
	first := func(t *bridgefour.Task) error {
		t.Records().Scan()
		_, err := fmt.Fprintf(t.Out(), "%s\n", t.Records().Bytes())
		return err
	}
	f := newBuiltin(t, &wire.Job{}, func(_ context.Context, t *bridgefour.Task) error { return first(t) })
	f.want(f.run(t.Context(), split), "1\n3\n5\n")
	f = newBuiltin(t, &wire.Job{}, func(_ context.Context, t *bridgefour.Task) error {
		err := errors.Join(first(t), t.Out().WriteByte('-'))
		if t.NextInput() {
			err = errors.Join(err, first(t))
		}
		return err
	})
	f.want(f.run(t.Context(), split), "1\n-3\n5\n-")
}

// TestPackedFailures name the file.
func TestPackedFailures(t *testing.T) {
	dir := t.TempDir()
	paths := []string{writeFile(t, dir, "a", "a\n"), writeFile(t, dir, "b", "b\n"), writeFile(t, dir, "c", "c\n")}
	at := func(name string, do func(t *bridgefour.Task) error) func(context.Context, *bridgefour.Task) error {
		return func(ctx context.Context, t *bridgefour.Task) error {
			if filepath.Base(t.Input()) == name {
				return do(t)
			}
			return copyTask(ctx, t)
		}
	}
	broken := errors.New("broken")
	for _, test := range []struct {
		kind wire.FailureKind
		do   func(t *bridgefour.Task) error
	}{
		{wire.FailureKind_PROGRAM_ERROR, func(*bridgefour.Task) error { return broken }},
		{wire.FailureKind_BAD_INPUT, func(*bridgefour.Task) error { return bridgefour.BadInput(broken) }},
		{wire.FailureKind_PROGRAM_ERROR, func(*bridgefour.Task) error { panic(broken) }},
	} {
		f := newBuiltin(t, &wire.Job{}, at("b", test.do))
		f.wantFailure(f.run(t.Context(), packSplit(paths...)), test.kind, "input \""+paths[1]+"\": ", "broken")
	}
	for timeout, begun := uint64(1), false; !begun; timeout *= 2 { // in which the first file has to be read
		f := newBuiltin(t, &wire.Job{TimeoutMs: timeout}, at("b", func(t *bridgefour.Task) error {
			begun = true
			<-t.Context().Done()
			return t.Context().Err()
		}))
		if out := f.run(t.Context(), packSplit(paths...)); begun {
			f.wantFailure(out, wire.FailureKind_TIMEOUT, fmt.Sprintf("timed out after %dms; it was reading %q", timeout, paths[1]))
		}
	}
	f := newBuiltin(t, &wire.Job{}, copyTask)
	f.wantFailure(f.run(t.Context(), packSplit(append(paths, filepath.Join(dir, "gone"))...)), wire.FailureKind_BAD_INPUT, "gone", "no such file")
}

// TestPackedChanges: a file that changes before or while it is read fails its task, and one that grows is read as far
// as it was.
func TestPackedChanges(t *testing.T) {
	for name, during := range map[string]bool{"before": false, "during": true} {
		dir := t.TempDir()
		paths := []string{writeFile(t, dir, "a", "a\n"), writeFile(t, dir, "b", "b\n"), writeFile(t, dir, "c", "c\n")}
		split := packSplit(paths...)
		change := func(text string) {
			if err := os.WriteFile(paths[1], []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		run := func(text string) (*fixture, Outcome) {
			f := newBuiltin(t, &wire.Job{}, func(ctx context.Context, t *bridgefour.Task) error {
				if during && filepath.Base(t.Input()) == "b" { // it is left before its end
					_, err := t.Read(make([]byte, 1))
					change(text)
					return err
				}
				return copyTask(ctx, t)
			})
			if !during {
				change(text)
			}
			return f, f.run(t.Context(), split)
		}
		f, out := run("")
		f.wantFailure(out, wire.FailureKind_BAD_INPUT, paths[1], "has changed since the job was submitted", "running the failed tasks again reads it as it is now")
		change("b\n")
		split = packSplit(paths...)
		for _, path := range []string{paths[0], paths[1]} {
			if err := appendTo(path, "more\n"); err != nil {
				t.Fatal(err)
			}
		}
		f = newBuiltin(t, &wire.Job{}, copyTask)
		out = f.run(t.Context(), split)
		f.want(out, "a\nb\nc\n")
		if !strings.Contains(out.Warning, paths[0]+`" has grown`) || !strings.Contains(out.Warning, "; and of the task's other files, 1") {
			t.Errorf("%s: warning %q, want the first file that has grown, and how many more", name, out.Warning)
		}
	}
}
