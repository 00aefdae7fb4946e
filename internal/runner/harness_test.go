package runner

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
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

// fileSplit is planned with the file as it is now.
func fileSplit(path string, offset, length int64) *wire.Split {
	return planned(&wire.FileSplit{Path: []byte(path), Offset: uint64(offset), Length: uint64(length)})
}

func wholeFile(path string) *wire.Split {
	return planned(&wire.FileSplit{Path: []byte(path), Whole: true})
}

func planned(file *wire.FileSplit) *wire.Split {
	if info, err := blob.NewFiles().Stat(context.Background(), blob.Location(file.GetPath())); err == nil {
		file.Size, file.ModifiedUnixNs, file.Identity = uint64(info.Size), info.Modified, info.Identity
		if f, err := blob.NewFiles().Open(context.Background(), info.Name, 0); err == nil && !file.GetWhole() {
			file.Tail, _ = blob.TailSum(f, info.Size)
			_ = f.Close()
		}
	}
	return &wire.Split{Kind: &wire.Split_File{File: file}}
}

func itemSplit(item string) *wire.Split {
	return &wire.Split{Kind: &wire.Split_Item{Item: []byte(item)}}
}

// partsOf returns the outcomes' files as input of a collect stage.
func partsOf(outcomes []Outcome) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for i, out := range outcomes {
			if !yield(Part{Index: uint64(i), Path: out.File, Size: out.Size, Records: out.Records, Checksum: out.Checksum}, nil) {
				return
			}
		}
	}
}

// logged records a log.
type logged struct {
	mu     sync.Mutex
	text   bytes.Buffer
	pieces int
	waits  []chan struct{}
}

func (l *logged) Append(text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(text)
	l.pieces++
	for _, wait := range l.waits {
		close(wait)
	}
	l.waits = nil
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// next returns a channel that is closed by the first Append.
func (l *logged) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := make(chan struct{})
	if l.pieces > 0 {
		close(wait)
	} else {
		l.waits = append(l.waits, wait)
	}
	return wait
}

// fixture is a slot and a job.
type fixture struct {
	t      *testing.T
	slot   *Slot
	job    *wire.Job
	log    *logged
	output string
	lease  uint64
}

func newFixture(t *testing.T, job *wire.Job, builtins ...bridgefour.Job) *fixture {
	t.Helper()
	r := New(Config{Jobs: builtins, LogBytesMax: 4096, Worker: func() uint64 { return 7 }})
	r.host, r.loader.Host = "here", "here"
	f := &fixture{t: t, slot: r.NewSlot(), job: job, output: t.TempDir()}
	t.Cleanup(func() { closeSlot(t, f.slot) })
	job.Id, job.Uid, job.Output = 12, "uid", f.output
	return f
}

// run runs an attempt of task 3.
func (f *fixture) run(ctx context.Context, split *wire.Split) Outcome {
	f.lease++
	f.log = new(logged)
	return f.slot.Run(ctx, &Attempt{
		Job: f.job, StageName: "map", Index: 3, Lease: f.lease, Number: 2, Split: split, Log: f.log,
	})
}

// want checks an outcome and its file's content.
func (f *fixture) want(out Outcome, text string) {
	f.t.Helper()
	if out.Failure != nil || out.Canceled {
		f.t.Errorf("Run() = %v, canceled %v", out.Failure, out.Canceled)
		return
	}
	if out.File == "" && text == "" && f.job.GetSpool() {
		return
	}
	if want := filepath.Join(f.folder(), layout.Attempt("map", 3, f.lease)); string(out.File) != want {
		f.t.Errorf("Run().File = %q, want %q", out.File, want)
		return
	}
	got, err := os.ReadFile(string(out.File))
	if err != nil || string(got) != text {
		f.t.Errorf("the attempt's file = %.200q, %v, want %.200q", got, err, text)
	}
	lines := uint64(strings.Count(text, "\n"))
	if text != "" && !strings.HasSuffix(text, "\n") {
		lines++
	}
	if out.Size != uint64(len(text)) || out.Records != lines || out.Checksum != xxhash.Sum64String(text) {
		f.t.Errorf("Run() = %+v, want size %d, %d records and the checksum of %.200q", out, len(text), lines, text)
	}
}

// wantFailure checks that an attempt failed and left no file.
func (f *fixture) wantFailure(out Outcome, kind wire.FailureKind, texts ...string) {
	f.t.Helper()
	if out.Failure.GetKind() != kind || out.File != "" || out.Canceled {
		f.t.Errorf("Run() = %+v, want %v", out, kind)
	}
	for _, text := range texts {
		if !strings.Contains(out.Failure.GetMessage(), text) {
			f.t.Errorf("Run() = %q, want it to say %q", out.Failure.GetMessage(), text)
		}
	}
	if out.Failure != nil && (out.Failure.Job != 12 || out.Failure.Index != 3 || out.Failure.Lease != f.lease) {
		f.t.Errorf("Run().Failure = %v, which is of another attempt", out.Failure)
	}
	f.wantNoFiles()
}

func (f *fixture) wantNoFiles() {
	f.t.Helper()
	for _, name := range f.files() {
		f.t.Errorf("%s was left behind", name)
	}
}

func (f *fixture) folder() string { return filepath.Join(f.output, layout.Private("uid")) }

func (f *fixture) files() []string {
	f.t.Helper()
	entries, err := os.ReadDir(f.folder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteString(text)
	return err
}
