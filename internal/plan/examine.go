package plan

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/format"
	"github.com/bridgefour/bridgefour/internal/record"
	"github.com/bridgefour/bridgefour/internal/state"
)

// How many files are examined at the same time: many, for stores with a latency, unless all of each is read, which takes a processor.
const (
	examineMax    = 16
	examineMaxCSV = 2
)

// candidate is a file that is not in the input yet: those before it may be being examined.
type candidate struct {
	field   string // of the request
	name    string
	version state.Version
	whole   bool

	examined   chan struct{} // nil: it need not be
	format     format.Format
	boundaries []int64 // of CSV
	err        error   // of reading it
	bad        error   // it is not of the job's kind of records
}

// examine starts to look at a file that is larger than a split: its first bytes tell whether it can be cut, and all of it where the rows of CSV
// begin. Files that are not cut are not looked at.
func (l *fileList) examine(ctx context.Context, c *candidate) {
	c.examined = make(chan struct{})
	go func() {
		defer close(c.examined)
		c.err = l.look(ctx, c)
	}()
}

// look reads as much of a file as is needed.
func (l *fileList) look(ctx context.Context, c *candidate) error {
	store, name, err := l.p.opt.Stores.Open(c.name)
	if err != nil {
		return err
	}
	file, err := store.Open(ctx, name, 0)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read from
	prefix := make([]byte, min(format.PrefixSize, c.version.Size))
	n, err := io.ReadFull(file, prefix)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // a file that shrank is detected by its tasks
		return err
	}
	c.format = format.Detect(prefix[:n])
	if c.version.Tail, err = blob.TailSum(file, int64(c.version.Size)); err != nil && !errors.Is(err, io.EOF) { // nor is it by its tasks
		return err
	}
	if c.format != format.Text || !l.p.kind.IsCSV() {
		return nil
	}
	source := &source{r: io.MultiReader(strings.NewReader(string(prefix[:n])), file)}
	c.boundaries, c.bad = record.CSVBoundaries(source, int64(c.version.Size), int64(l.split), int(l.p.result.Header))
	return source.err
}

// source notes the error of reading, to distinguish it from those of the content.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (l *fileList) examineMax() int {
	if l.p.kind.IsCSV() {
		return examineMaxCSV
	}
	return examineMax
}

// addQueued adds the files in order, until at most keep of them are left that are being examined.
func (l *fileList) addQueued(keep int) {
	for len(l.queue) > 0 {
		c := l.queue[0]
		if c.examined != nil {
			if len(l.queue) <= keep {
				return
			}
			<-c.examined
			l.judge(c)
		}
		l.queue = l.queue[1:]
		l.addTasks(c)
	}
}

// abandon waits until no file is being examined.
func (l *fileList) abandon() {
	for _, c := range l.queue {
		if c.examined != nil {
			<-c.examined
		}
	}
}

// judge decides whether a file that was examined is cut.
func (l *fileList) judge(c *candidate) {
	p := l.p
	switch {
	case c.err != nil:
		// Its task reports the error, unless its worker can read it.
		l.keepWhole(c, unreadable, c.err.Error())
	case c.bad != nil:
		p.fail(c.field, "input %q cannot be cut: %v", c.name, c.bad)
	case c.format == format.Text:
	case p.req.Split != "":
		p.fail("split", "input %q is %s and larger than %s, and only text is cut: %s", c.name, c.format, p.req.Split, wholes[reasonOf(c.format)].wayOut)
	default:
		l.keepWhole(c, reasonOf(c.format), string(c.format))
	}
}

// reason is why a file is not cut.
type reason uint8

const (
	unreadable reason = iota
	compressed
	utf16
	notText
	reasons
)

func reasonOf(f format.Format) reason {
	switch {
	case f.Compressed(), f.NeedsTool():
		return compressed
	case f == format.UTF16:
		return utf16
	}
	return notText
}

// wholes are the warnings about files that are not cut, and what to do if --split demands it.
var wholes = [reasons]struct{ one, many, wayOut string }{ //nolint:gochecknoglobals // a table
	unreadable: {
		one:  "input %q cannot be examined here (%s): one task",
		many: "%d inputs cannot be examined here, such as %q (%s): one task each",
	},
	compressed: {
		one:    "input %q is compressed (%s): one task",
		many:   "%d inputs larger than a split are compressed, such as %q (%s): one task each",
		wayOut: "leave out --split, for one task, or decompress it first",
	},
	utf16: {
		one:    "input %q is not UTF-8 (%s): one task; convert it to split it, as with iconv -f UTF-16 -t UTF-8",
		many:   "%d inputs are not UTF-8, such as %q (%s): one task each; convert them to split them, as with iconv -f UTF-16 -t UTF-8",
		wayOut: "leave out --split, for one task, or convert it, as with iconv -f UTF-16 -t UTF-8",
	},
	notText: {
		one:    "input %q is not text (%s): one task (--records fixed:N to split it)",
		many:   "%d inputs larger than a split are not text, such as %q (%s): one task each (--records fixed:N to split them)",
		wayOut: "leave out --split, for one task, or add --records fixed:N if it consists of records of N bytes",
	},
}

// whole counts the files that are not cut for one reason.
type whole struct {
	count      uint64
	name, what string // of the first
}

func (l *fileList) keepWhole(c *candidate, why reason, what string) {
	c.whole = true
	if c.version.Size <= l.splitMax { // it is cut only to have many tasks
		return
	}
	w := &l.wholes[why]
	if w.count++; w.count == 1 {
		w.name, w.what = c.name, what
	}
}

// warnWholes warns about the files that are not cut.
func (l *fileList) warnWholes() {
	for why, w := range l.wholes {
		switch w.count {
		case 0:
		case 1:
			l.p.warn(wholes[why].one, w.name, w.what)
		default:
			l.p.warn(wholes[why].many, w.count, w.name, w.what)
		}
	}
}
