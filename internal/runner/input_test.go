//go:build linux

package runner

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// inputText is larger than a pipe and the reader's buffers.
var inputText = strings.Repeat("an old line of text\n", 50_000)

// inputChanges are what may happen to a file, and whether the job can still read what was submitted.
var inputChanges = map[string]struct {
	change func(path string) error
	ok     bool
}{
	"nothing":  {func(string) error { return nil }, true},
	"append":   {func(path string) error { return appendTo(path, "a new line\n") }, true},
	"link":     {func(path string) error { return os.Link(path, path+".link") }, true},
	"mode":     {func(path string) error { return os.Chmod(path, 0o640) }, true},
	"truncate": {func(path string) error { return os.Truncate(path, int64(len(inputText)/2)) }, false},
	"empty":    {func(path string) error { return os.Truncate(path, 0) }, false},
	"touch":    {func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1_700_000_000, 0)) }, false},
	"rewrite": {func(path string) error {
		return os.WriteFile(path, []byte(strings.ReplaceAll(inputText, "old", "new")), 0o600)
	}, false},
	"replace":                 {func(path string) error { return replace(path, strings.ReplaceAll(inputText, "old", "new")) }, false},
	"replace by a longer one": {func(path string) error { return replace(path, inputText+inputText) }, false},
	"replace by one of the same size and time": {func(path string) error {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := replace(path, strings.ReplaceAll(inputText, "old", "new")); err != nil {
			return err
		}
		return os.Chtimes(path, time.Time{}, st.ModTime())
	}, false},
	"create again": {func(path string) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(inputText+"longer"), 0o600) // often of the same inode
	}, false},
}

func replace(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// wantInput checks the end of an attempt on a file that was changed.
func (f *fixture) wantInput(out Outcome, ok bool, path, want string) {
	f.t.Helper()
	if !ok {
		f.wantFailure(out, wire.FailureKind_BAD_INPUT, path, "has changed since the job was submitted: it was 1,000,000 bytes, modified ", "; it is ")
		return
	}
	f.want(out, want)
}

// TestInputChanged changes a file between submit and its attempt.
func TestInputChanged(t *testing.T) {
	half := len(inputText) / 2
	for name, program := range map[string]func(t *testing.T) *fixture{
		"builtin": func(t *testing.T) *fixture { t.Helper(); return newBuiltin(t, &wire.Job{}, copyTask) },
		"stdin":   func(t *testing.T) *fixture { t.Helper(); return newCommandFixture(t, &wire.Job{}, "cat") },
		"name":    func(t *testing.T) *fixture { t.Helper(); return newCommandFixture(t, &wire.Job{}, "cat", "{}") },
	} {
		for change, test := range inputChanges {
			t.Run(name+" "+change, func(t *testing.T) {
				f := program(t)
				path := writeFile(t, t.TempDir(), "input", inputText)
				whole, first, second := wholeFile(path), fileSplit(path, 0, int64(half)), fileSplit(path, int64(half), int64(half))
				if err := test.change(path); err != nil {
					t.Fatal(err)
				}
				want := inputText
				grown := change == "append"
				if name == "name" && grown {
					want += "a new line\n" // the command reads what it will
				}
				out := f.run(t.Context(), whole)
				f.wantInput(out, test.ok, path, want)
				if got := f.log.String(); grown != strings.Contains(got, path+`" has grown since the job was submitted, when it had 1,000,000 bytes`) ||
					!strings.Contains(got, out.Warning) || grown != (out.Warning != "") {
					t.Errorf("the log is %q, the warning %q", got, out.Warning)
				}
				if name != "name" {
					f.wantInput(f.run(t.Context(), first), test.ok, path, inputText[:half])
					f.wantInput(f.run(t.Context(), second), test.ok, path, inputText[half:])
				}
			})
		}
	}
}

// TestInputChangedMeanwhile changes a file while an attempt reads it. One that was replaced is read as it was: it is still open.
func TestInputChangedMeanwhile(t *testing.T) {
	for change, test := range inputChanges {
		replaced := strings.HasPrefix(change, "replace") || change == "create again"
		t.Run(change, func(t *testing.T) {
			path := writeFile(t, t.TempDir(), "input", inputText)
			for _, all := range []bool{true, false} {
				split := wholeFile(path)
				f := newBuiltin(t, &wire.Job{}, func(_ context.Context, task *bridgefour.Task) error {
					if _, err := io.CopyN(task.Out(), task, 100); err != nil {
						return err
					}
					if err := test.change(path); err != nil {
						return err
					}
					if !all {
						return nil
					}
					_, err := io.Copy(task.Out(), task)
					return err
				})
				want := inputText
				if !all {
					want = inputText[:100]
				}
				f.wantInput(f.run(t.Context(), split), test.ok || replaced, path, want)
				_ = os.Remove(path + ".link")
				path = writeFile(t, t.TempDir(), "input", inputText)
			}
			split := fileSplit(path, 0, int64(len(inputText)-1)) // a pipe
			f := newCommandFixture(t, &wire.Job{}, "sh", "-c", `head -c 10; : >"$0.begun"; read -r _; while [ ! -e "$0" ]; do sleep 0.01; done; cat`, path+".go")
			done := make(chan error, 1)
			go func() {
				for begun := false; !begun; time.Sleep(time.Millisecond) { // until the command has read: the file is open
					_, err := os.Stat(path + ".go.begun")
					begun = err == nil
				}
				done <- test.change(path)
				_ = os.WriteFile(path+".go", nil, 0o600)
			}()
			out := f.run(t.Context(), split)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if !test.ok && !replaced {
				f.wantInput(out, false, path, "")
			} else if out.Failure != nil {
				t.Errorf("Run() = %v, want success", out.Failure)
			}
		})
	}
}

// TestInputRewrittenLonger: the same file with a longer text has not just grown. That is known if it happens while the file is read, and for
// a file of several splits.
func TestInputRewrittenLonger(t *testing.T) {
	longer := strings.ReplaceAll(inputText, "old", "newer")
	path := writeFile(t, t.TempDir(), "input", inputText)
	half := fileSplit(path, 0, int64(len(inputText)/2))
	if err := os.WriteFile(path, []byte(longer), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newBuiltin(t, &wire.Job{}, copyTask)
	f.wantInput(f.run(t.Context(), half), false, path, "")
	f = newCommandFixture(t, &wire.Job{}, "cat")
	f.wantInput(f.run(t.Context(), half), false, path, "")

	path = writeFile(t, t.TempDir(), "input", inputText)
	f = newBuiltin(t, &wire.Job{}, func(ctx context.Context, task *bridgefour.Task) error {
		if _, err := io.CopyN(task.Out(), task, 100); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(longer), 0o600); err != nil {
			return err
		}
		return copyTask(ctx, task)
	})
	f.wantInput(f.run(t.Context(), wholeFile(path)), false, path, "")
}

// TestInputChangedByCommand: commands that read the file themselves are checked at their end.
func TestInputChangedByCommand(t *testing.T) {
	for script, test := range map[string]struct {
		kind  wire.FailureKind
		parts []string
	}{
		`cat; truncate -s 10 FILE`:           {wire.FailureKind_BAD_INPUT, []string{"it is 10 bytes"}},
		`cat; echo new >> FILE`:              {wire.FailureKind_PROGRAM_ERROR, []string{"has grown", "the next attempt reads as far as it was"}},
		`cat; mv FILE FILE.old; echo > FILE`: {},
		`head -n1; rm FILE`:                  {},
		`cat "$0"; echo new >> "$0"`:         {},
		`cat "$0"; sed -i s/old/new/ "$0"`:   {wire.FailureKind_BAD_INPUT, []string{"has changed", "a command that changes its files must get their names with --lines"}},
		`cat "$0"; rm "$0"`:                  {},
		`exit 3 # touch -d 2001-01-01 FILE`:  {wire.FailureKind_PROGRAM_ERROR, []string{"exit status 3"}},
		`touch -d 2001-01-01 FILE; exit 3`:   {wire.FailureKind_BAD_INPUT, []string{"has changed"}},
	} {
		t.Run(script, func(t *testing.T) {
			path := writeFile(t, t.TempDir(), "input", inputText)
			argv := []string{"sh", "-c", strings.ReplaceAll(script, "FILE", path)}
			if strings.Contains(script, `"$0"`) {
				argv = append(argv, "{}")
			}
			f := newCommandFixture(t, &wire.Job{}, argv...)
			split := wholeFile(path)
			out := f.run(t.Context(), split)
			if test.parts != nil {
				f.wantFailure(out, test.kind, test.parts...)
			} else if out.Failure != nil {
				t.Errorf("Run() = %v, want success", out.Failure)
			}
			if strings.HasPrefix(script, "cat; echo new") { // the next attempt gets a pipe
				f.want(f.run(t.Context(), split), inputText)
			}
		})
	}
}

// TestCompressedInputGrown: what is appended to a compressed file is not read, even if it is no complete stream.
func TestCompressedInputGrown(t *testing.T) {
	for suffix, compress := range map[string]func(testing.TB, string) string{".gz": gzipped, ".zst": zstandard} {
		path := writeFile(t, t.TempDir(), "input"+suffix, compress(t, inputText))
		split := wholeFile(path)
		for _, more := range []string{compress(t, "more\n"), "garbage"} {
			if err := appendTo(path, more); err != nil {
				t.Fatal(err)
			}
			f := newBuiltin(t, &wire.Job{}, copyTask)
			f.want(f.run(t.Context(), split), inputText)
			f = newCommandFixture(t, &wire.Job{}, "cat")
			f.want(f.run(t.Context(), split), inputText)
		}
		if err := os.Truncate(path, int64(split.GetFile().GetSize())-5); err != nil {
			t.Fatal(err)
		}
		f := newBuiltin(t, &wire.Job{}, copyTask)
		f.wantFailure(f.run(t.Context(), split), wire.FailureKind_BAD_INPUT, path, "has changed")
	}
}

// TestInputOfAnOlderLeader: without a version, a split that ends behind the end of the file has changed, and so has a file that is
// written while it is read.
func TestInputOfAnOlderLeader(t *testing.T) {
	path := writeFile(t, t.TempDir(), "input", inputText)
	unknown := func(split *wire.Split) *wire.Split {
		file := split.GetFile()
		file.Size, file.ModifiedUnixNs, file.Identity = 0, 0, 0
		return split
	}
	f := newBuiltin(t, &wire.Job{}, copyTask)
	f.want(f.run(t.Context(), unknown(wholeFile(path))), inputText)
	f.want(f.run(t.Context(), unknown(fileSplit(path, 100, 100))), inputText[100:200])
	f = newBuiltin(t, &wire.Job{}, copyTask)
	f.wantFailure(f.run(t.Context(), unknown(fileSplit(path, 100, 1_000_000))), wire.FailureKind_BAD_INPUT, path, "it was 1,000,100 bytes or more; it is 1,000,000 bytes")
	f = newBuiltin(t, &wire.Job{}, func(ctx context.Context, task *bridgefour.Task) error {
		if _, err := io.CopyN(io.Discard, task, 10); err != nil {
			return err
		}
		if err := os.Truncate(path, 500_000); err != nil {
			return err
		}
		return copyTask(ctx, task)
	})
	f.wantFailure(f.run(t.Context(), unknown(wholeFile(path))), wire.FailureKind_BAD_INPUT, path, "has changed since it was opened: it was 1,000,000 bytes")
}

// TestInputWithoutSize: a file of /proc has a content, but its size says that it is empty.
func TestInputWithoutSize(t *testing.T) {
	const path = "/proc/self/status"
	if _, err := os.Stat(path); err != nil {
		t.Skip(err)
	}
	f := newBuiltin(t, &wire.Job{}, copyTask)
	f.wantFailure(f.run(t.Context(), wholeFile(path)), wire.FailureKind_BAD_INPUT, path, "its size is 0")
	f.want(f.run(t.Context(), wholeFile(writeFile(t, t.TempDir(), "empty", ""))), "")
}
