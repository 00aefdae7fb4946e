package tasklog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(tb testing.TB, cfg Config) *Log {
	tb.Helper()
	if cfg.Dir == "" {
		cfg.Dir = tb.TempDir()
	}
	l, err := Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	})
	return l
}

// write writes text as an attempt of task index.
func write(l *Log, job, index uint64, text string) {
	s := l.NewSink()
	s.Begin(Attempt{Job: job, Index: index, Number: 1, Lease: 1000 + index})
	s.Append([]byte(text))
	s.End()
}

// read returns "INDEX:TEXT" of all records, concatenated, and the error, if there is one.
func read(tb testing.TB, l *Log, q Query) string {
	tb.Helper()
	var text strings.Builder
	err := l.Read(context.Background(), q, func(r *Record) error {
		fmt.Fprintf(&text, "%d:%s", r.Index, r.Text)
		return nil
	}, func() error { return nil })
	if err != nil {
		fmt.Fprintf(&text, "%v", err)
	}
	return text.String()
}

func TestRead(t *testing.T) {
	l := open(t, Config{})
	write(l, 1, 0, "a\nb\n")
	write(l, 2, 0, "other job\n")
	write(l, 1, 1, "no end")
	write(l, 1, 2, "")
	write(l, 1, 1, "\xff\x00garbage\n")
	if got, want := read(t, l, Query{Job: 1}), "0:a\nb\n1:no end1:\xff\x00garbage\n"; got != want {
		t.Errorf("job 1 = %q, want %q", got, want)
	}
	if got, want := read(t, l, Query{Job: 1, OneTask: true, Index: 1}), "1:no end1:\xff\x00garbage\n"; got != want {
		t.Errorf("task 1/map/1 = %q, want %q", got, want)
	}
	if got := read(t, l, Query{Job: 99}); got != "" {
		t.Errorf("a job without log = %q", got)
	}
	if _, ok := l.jobs[99]; ok {
		t.Error("a job that was only asked for is remembered")
	}
}

func TestSinkKeepsLinesWhole(t *testing.T) {
	long := strings.Repeat("x", textMax+10)
	tests := []struct {
		name   string
		pieces []string
		want   []string
	}{
		{"whole lines at once", []string{"a\nb\n"}, []string{"a\nb\n"}},
		{"a line in pieces", []string{"a", "b", "c\nd", "e\n"}, []string{"abc\n", "de\n"}},
		{"no end", []string{"a\nb"}, []string{"a\n", "b"}},
		{"a line too long", []string{long, "\n"}, []string{long[:textMax], long[textMax:] + "\n"}},
		{
			"many lines",
			[]string{strings.Repeat("123456789\n", 7000)},
			[]string{strings.Repeat("123456789\n", 6553), strings.Repeat("123456789\n", 447)},
		},
		{"nothing", []string{"", ""}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := open(t, Config{})
			s := l.NewSink()
			s.Begin(Attempt{Job: 1, Number: 1})
			for _, p := range test.pieces {
				s.Append([]byte(p))
			}
			s.End()
			var got []string
			err := l.Read(context.Background(), Query{Job: 1}, func(r *Record) error {
				got = append(got, string(r.Text))
				return nil
			}, func() error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(got, "|") != strings.Join(test.want, "|") {
				t.Errorf("records = %.60q, want %.60q", got, test.want)
			}
		})
	}
}

func TestAttemptWithoutOutput(t *testing.T) {
	l := open(t, Config{})
	s := l.NewSink()
	allocs := testing.AllocsPerRun(100, func() {
		s.Begin(Attempt{Job: 7, Number: 1})
		s.End()
	})
	if allocs != 0 || len(l.jobs) != 0 {
		t.Errorf("an attempt that writes nothing: %v allocations, %d logs; want none", allocs, len(l.jobs))
	}
}

// TestTornTail cuts a log at every byte, as a power loss might, and continues in a new process.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	write(l, 1, 0, "first\n")
	l.Flush()
	one := l.jobs[1].size
	write(l, 1, 1, "second\n")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "1.log")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if err := os.WriteFile(file, whole[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		want, torn := "", n
		if int64(n) >= one {
			want, torn = "0:first\n", n-int(one)
		}
		if torn >= clockBytes {
			torn -= clockBytes // a whole record
		}
		lost, remark := "", ""
		if torn > 0 {
			lost = fmt.Sprintf("%d bytes of the log of job 1 were lost: torn or damaged record", torn)
			remark = fmt.Sprintf("0:[%d bytes of the log of job 1 on this worker were lost: torn or damaged record]\n", torn)
		}
		l := open(t, Config{Dir: dir})
		if got := read(t, l, Query{Job: 1}); got != want+lost {
			t.Errorf("cut at %d: %q, want %q", n, got, want+lost)
		}
		write(l, 1, 2, "third\n")
		want += remark + "2:third\n"
		if got := read(t, l, Query{Job: 1}); got != want {
			t.Errorf("cut at %d, then written to: %q, want %q", n, got, want)
		}
		if l.total != l.jobs[1].size {
			t.Errorf("cut at %d: total = %d, want %d", n, l.total, l.jobs[1].size)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJobLimit(t *testing.T) {
	l := open(t, Config{JobBytesMax: 2000})
	for i := range uint64(100) {
		write(l, 1, i, strings.Repeat("y", 99)+"\n")
	}
	write(l, 2, 0, "other\n")
	got := read(t, l, Query{Job: 1})
	const mark = "has reached its limit of 2000 bytes; further text is dropped]\n"
	if !strings.HasSuffix(got, mark) || strings.Count(got, mark) != 1 {
		t.Errorf("the log ends %q, want one remark that it is cut", got[max(0, len(got)-120):])
	}
	if size := l.jobs[1].size; size > 2200 {
		t.Errorf("the file has %d bytes, want about 2000", size)
	}
	if got := read(t, l, Query{Job: 1, OneTask: true, Index: 90}); !strings.HasSuffix(got, mark) {
		t.Errorf("log of a task whose text was dropped = %q, want the remark", got)
	}
	if got := read(t, l, Query{Job: 2}); got != "0:other\n" {
		t.Errorf("log of another job = %q", got)
	}
}

func TestTotalLimit(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir, TotalBytesMax: 5000})
	for job := uint64(1); job <= 10; job++ {
		write(l, job, 0, strings.Repeat("z", 999)+"\n")
		l.Flush()
	}
	if l.total > 5000 {
		t.Errorf("total = %d, want 5000 at most", l.total)
	}
	const remark = "0:[the log of job 1 on this worker was removed: all logs together have a limit of 5000 bytes]\n"
	if got := read(t, l, Query{Job: 1}); got != remark {
		t.Errorf("the oldest log is %q, want %q", got, remark)
	}
	if got := read(t, l, Query{Job: 10}); got == "" {
		t.Error("the newest log is gone")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, Config{Dir: dir, JobsMax: 2})
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || len(l.jobs) != 2 {
		t.Errorf("%d files, %d logs with room for 2", len(entries), len(l.jobs))
	}
}

func TestOpenFilesLimit(t *testing.T) {
	l := open(t, Config{OpenFilesMax: 3})
	for range 3 {
		for job := uint64(1); job <= 10; job++ {
			write(l, job, 0, "line\n")
			l.Flush()
			if l.opened > 3 {
				t.Fatalf("%d files open, want 3 at most", l.opened)
			}
		}
	}
	for job := uint64(1); job <= 10; job++ {
		if got := read(t, l, Query{Job: job}); got != "0:line\n0:line\n0:line\n" {
			t.Errorf("job %d = %q", job, got)
		}
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Config{})
		lines := make(chan string, 100)
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() {
			result <- l.Read(ctx, Query{Job: 1, Follow: true}, func(r *Record) error {
				lines <- string(r.Text)
				return nil
			}, func() error { return nil })
		}()
		for i := range 5 {
			begin := time.Now()
			write(l, 1, 0, fmt.Sprintf("line %d\n", i))
			if got, want := <-lines, fmt.Sprintf("line %d\n", i); got != want {
				t.Errorf("followed %q, want %q", got, want)
			}
			if waited := time.Since(begin); waited > 200*time.Millisecond {
				t.Errorf("a line was seen after %v, want 200 ms at most", waited)
			}
		}
		cancel()
		if err := <-result; err != nil {
			t.Errorf("Read() = %v", err)
		}
		if l.jobs[1].readers != 0 {
			t.Error("the reader is still counted")
		}
	})
}

func TestFollowEndsAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Config{})
		result := make(chan error, 1)
		var got string
		go func() {
			result <- l.Read(t.Context(), Query{Job: 1, Follow: true}, func(r *Record) error {
				got += string(r.Text)
				return nil
			}, func() error { return nil })
		}()
		synctest.Wait()
		write(l, 1, 0, "last words\n")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-result; err != nil {
			t.Errorf("Read() = %v", err)
		}
		if got != "last words\n" {
			t.Errorf("followed %q before the end, want the last words", got)
		}
	})
}

func TestReadStopsAtAnError(t *testing.T) {
	l := open(t, Config{})
	write(l, 1, 0, "a\n")
	write(l, 1, 0, "b\n")
	stop := errors.New("enough")
	calls := 0
	err := l.Read(context.Background(), Query{Job: 1}, func(*Record) error { calls++; return stop }, func() error { return nil })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("Read() = %v after %d calls, want %v after 1", err, calls, stop)
	}
}

// clockBytes is the size of a clock record in this century.
const clockBytes = 21

// TestTimes: each record has the time when it came. Those of files from before there were times have none.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		old := appendRecord(nil, &Record{Index: 7, Number: 1, Lease: 7, Text: []byte("old\n")})
		if err := os.WriteFile(filepath.Join(dir, "1.log"), old, 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, Config{Dir: dir})
		begun := time.Now().UnixMilli()
		for index := range uint64(4) {
			write(l, 1, index, "text\n")
			time.Sleep(6 * time.Millisecond)
		}
		var got []int64
		if err := l.Read(t.Context(), Query{Job: 1}, func(r *Record) error {
			got = append(got, max(0, r.Time-begun))
			return nil
		}, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if want := []int64{0, 0, 0, 12, 12}; !slices.Equal(got, want) {
			t.Errorf("times = %v ms, want %v", got, want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	// The file is a folder: it cannot be written.
	if err := os.Mkdir(filepath.Join(dir, "1.log"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(l, 1, 0, "lost\n")
	l.Flush()
	if got := read(t, l, Query{Job: 1}); !strings.Contains(got, "39 bytes of the log of job 1 were lost: ") || !strings.Contains(got, "is a directory") {
		t.Errorf("log without a file = %q, want how much is lost and why", got)
	}
	if err := os.Remove(filepath.Join(dir, "1.log")); err != nil {
		t.Fatal(err)
	}
	write(l, 1, 0, "kept\n")
	if got := read(t, l, Query{Job: 1}); !strings.HasPrefix(got, "0:[39 bytes of the log of job 1 on this worker were lost: ") ||
		!strings.HasSuffix(got, "]\n0:kept\n") {
		t.Errorf("log = %q, want a remark and what was written when there was room", got)
	}
}

func FuzzDecoder(f *testing.F) {
	rec := appendRecord(nil, &Record{Stage: 1, Index: 2, Number: 3, Lease: 4, Text: []byte("text\n")})
	f.Add(rec)
	f.Add(append(bytes.Clone(rec), rec[:len(rec)-1]...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, file []byte) {
		d := newDecoder(bytes.NewReader(file))
		var rec Record
		for {
			err := d.next(&rec)
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, errTorn) {
					t.Fatalf("next() = %v", err)
				}
				break
			}
			var again Record
			if err := newDecoder(bytes.NewReader(appendRecord(nil, &rec))).next(&again); err != nil {
				t.Fatalf("record %+v does not survive encoding: %v", rec, err)
			}
			if !bytes.Equal(again.Text, rec.Text) || again.Lease != rec.Lease || again.Index != rec.Index ||
				again.Stage != rec.Stage || again.Number != rec.Number {
				t.Fatalf("record %+v became %+v", rec, again)
			}
		}
		if d.n > int64(len(file)) {
			t.Fatalf("%d bytes of records in %d bytes", d.n, len(file))
		}
	})
}

// FuzzPayload reaches behind the checksum, which random bytes do not pass.
func FuzzPayload(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 'x'})
	f.Add(bytes.Repeat([]byte{0xff}, 50))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var rec Record
		if decodePayload(payload, &rec) && len(rec.Text) > len(payload) {
			t.Fatalf("text of %d bytes in a payload of %d", len(rec.Text), len(payload))
		}
	})
}

func TestTail(t *testing.T) {
	s := open(t, Config{}).NewSink()
	s.Begin(Attempt{Job: 1, Number: 1, Lease: 1})
	var all strings.Builder
	for i := range 20_000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		s.Append([]byte(line))
	}
	s.End()
	want := all.String()[all.Len()-tailMax:]
	if last, total := s.Tail(); string(last) != want || total != uint64(all.Len()) {
		t.Errorf("Tail() = %d of %d bytes, want the last %d of %d", len(last), total, tailMax, all.Len())
	}
	s.Begin(Attempt{Job: 1, Number: 2, Lease: 2})
	if last, total := s.Tail(); len(last) > 0 || total > 0 {
		t.Errorf("Tail() of a new attempt = %d of %d bytes, want none", len(last), total)
	}
	s.End()
}
