package tasklog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/internal/datadir"
)

// logExt ends the name of a job's file.
const logExt = ".log"

// bufferMax is the text of a job that is buffered for the flusher; beyond it the appending goroutine writes.
const bufferMax = 64 << 10

// Config bounds a worker's logs.
type Config struct {
	Dir string
	// JobBytesMax bounds one job's log; text beyond it is dropped, and a remark logged instead. Defaults to 64 MiB.
	JobBytesMax int64
	// TotalBytesMax bounds all logs together; beyond it the least recently written are replaced by a remark. Defaults to 1 GiB.
	TotalBytesMax int64
	// JobsMax bounds the number of logs; beyond it the least recently written are removed. Defaults to 10,000.
	JobsMax int
	// OpenFilesMax is the number of files kept open for appending. Defaults to 16.
	OpenFilesMax int
	// FlushDelay bounds the time that text stays in memory. Defaults to 100 ms.
	FlushDelay time.Duration
	// Logger defaults to none.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.JobBytesMax = cmp.Or(c.JobBytesMax, 64<<20)
	c.TotalBytesMax = cmp.Or(c.TotalBytesMax, 1<<30)
	c.JobsMax = cmp.Or(c.JobsMax, 10_000)
	c.OpenFilesMax = cmp.Or(c.OpenFilesMax, 16)
	c.FlushDelay = cmp.Or(c.FlushDelay, 100*time.Millisecond)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Log is the logs of all jobs on a worker.
type Log struct {
	cfg     Config
	dirty   chan struct{} // holds one: there is something to flush
	closing chan struct{}
	flusher sync.WaitGroup

	mu        sync.Mutex
	jobs      map[uint64]*jobLog
	unwritten []*jobLog // those with a buffer
	total     int64     // bytes in files
	clock     uint64
	opened    int
	closed    bool
}

// jobLog is one job's log, guarded by the Log's mutex. Writes under the mutex go to the page cache.
type jobLog struct {
	job     uint64
	size    int64 // of whole records in the file
	checked bool  // size is exact, and not just the file's length
	file    *os.File
	buf     []byte // records not written yet
	stamped int64  // time of the last clock record, Unix milliseconds
	full    bool
	lost    lostText // not yet recorded in the file
	used    uint64   // the Log's clock at the last append: the oldest is removed first
	readers int
	grown   chan struct{} // closed and replaced when size grows
}

// lostText is text that the file lacks. A remark in the file replaces it as soon as one can be written.
type lostText struct {
	bytes int64
	err   error // the first
}

// Open opens the logs in cfg.Dir, which it creates if needed. The caller closes the Log.
func Open(cfg Config) (*Log, error) {
	l := &Log{
		cfg: cfg.withDefaults(), jobs: map[uint64]*jobLog{},
		dirty: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	if err := datadir.Mkdir(cfg.Dir, func(name string) bool { return strings.HasSuffix(name, logExt) }); err != nil {
		return nil, fmt.Errorf("task logs: %w", err)
	}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("task logs: %w", err)
	}
	l.flusher.Go(l.runFlusher)
	return l, nil
}

// load registers the files of earlier processes, in order of their last write.
func (l *Log) load() error {
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil {
		return err
	}
	var found []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			found = append(found, info)
		}
	}
	slices.SortFunc(found, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range found {
		name, ok := strings.CutSuffix(info.Name(), logExt)
		job, err := strconv.ParseUint(name, 10, 64)
		if !ok || err != nil {
			continue // not ours
		}
		j := l.job(job)
		j.size = info.Size()
		l.total += j.size
		l.touch(j)
	}
	l.prune()
	return nil
}

func (l *Log) path(job uint64) string {
	return filepath.Join(l.cfg.Dir, strconv.FormatUint(job, 10)+logExt)
}

func (l *Log) job(id uint64) *jobLog {
	j := l.jobs[id]
	if j == nil {
		j = &jobLog{job: id, grown: make(chan struct{})}
		l.jobs[id] = j
	}
	return j
}

func (l *Log) touch(j *jobLog) {
	l.clock++
	j.used = l.clock
}

// append appends text of at most textMax bytes.
func (l *Log) append(a Attempt, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	j := l.job(a.Job)
	l.touch(j)
	if j.full {
		return
	}
	rec := Record{Stage: a.Stage, Index: a.Index, Number: a.Number, Lease: a.Lease, Text: text}
	if j.size+int64(len(j.buf)+len(text)) > l.cfg.JobBytesMax {
		j.full = true
		rec = Record{Text: fmt.Appendf(nil, "[the log of job %d on this worker has reached its limit of %d bytes; further text is dropped]\n",
			a.Job, l.cfg.JobBytesMax)}
	}
	if len(j.buf) == 0 {
		l.unwritten = append(l.unwritten, j)
	}
	if now := time.Now().UnixMilli(); len(j.buf) == 0 || now >= j.stamped+clockEvery || now < j.stamped {
		clock := clockRecord(now)
		j.buf, j.stamped = appendRecord(j.buf, &clock), now
	}
	j.buf = appendRecord(j.buf, &rec)
	if len(j.buf) >= bufferMax {
		l.write(j)
		l.prune()
		return
	}
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

// write moves a job's buffer to its file. Text that cannot be written is dropped: a full disk must not stop attempts.
func (l *Log) write(j *jobLog) {
	if len(j.buf) == 0 {
		return
	}
	l.unwritten = slices.DeleteFunc(l.unwritten, func(u *jobLog) bool { return u == j })
	buf := j.buf
	j.buf = j.buf[:0]
	if err := l.writeFile(j, buf); err != nil {
		l.failed(j, int64(len(buf)), err)
		return
	}
	close(j.grown)
	j.grown = make(chan struct{})
	if cap(j.buf) > 4*bufferMax {
		j.buf = nil
	}
}

// writeFile appends records to the job's file, after a remark about text lost before them.
func (l *Log) writeFile(j *jobLog, records []byte) error {
	if err := l.open(j); err != nil {
		return err
	}
	if j.lost.err != nil {
		remark := Record{Text: fmt.Appendf(nil, "[%d bytes of the log of job %d on this worker were lost: %v]\n", j.lost.bytes, j.job, j.lost.err)}
		records = append(appendRecord(nil, &remark), records...)
	}
	if _, err := j.file.WriteAt(records, j.size); err != nil {
		return err
	}
	j.lost = lostText{}
	j.size += int64(len(records))
	l.total += int64(len(records))
	return nil
}

// failed counts lost text, and logs the first error until a write succeeds.
func (l *Log) failed(j *jobLog, lost int64, err error) {
	if j.lost.err == nil {
		j.lost.err = err
		l.cfg.Logger.Error("task log not written; text dropped", "job", j.job, "error", err)
	}
	j.lost.bytes += lost
}

// open opens the job's file for writing at size.
func (l *Log) open(j *jobLog) error {
	if j.file != nil {
		return nil
	}
	if l.opened >= l.cfg.OpenFilesMax {
		l.closeOldest()
	}
	f, err := os.OpenFile(l.path(j.job), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if !j.checked {
		whole, err := wholeRecords(f)
		if err == nil {
			err = f.Truncate(whole)
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		if whole < j.size {
			j.lost = lostText{bytes: j.size - whole, err: errTorn}
		}
		l.total += whole - j.size
		j.size, j.checked = whole, true
	}
	j.file = f
	l.opened++
	return nil
}

// wholeRecords is the length of the readable part of a file.
func wholeRecords(f io.Reader) (int64, error) {
	d := newDecoder(f)
	var rec Record
	for {
		switch err := d.next(&rec); {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, errTorn):
			return d.n, nil
		default:
			return 0, err
		}
	}
}

func (l *Log) closeOldest() {
	var oldest *jobLog
	for _, j := range l.jobs {
		if j.file != nil && (oldest == nil || j.used < oldest.used) {
			oldest = j
		}
	}
	l.closeFile(oldest)
}

func (l *Log) closeFile(j *jobLog) {
	if j == nil || j.file == nil {
		return
	}
	if err := j.file.Close(); err != nil {
		l.failed(j, 0, err)
	}
	j.file = nil
	l.opened--
}

// prune removes the least recently written logs until the rest is within bounds. A remark replaces one that leaves for its size.
func (l *Log) prune() {
	for len(l.jobs) > l.cfg.JobsMax {
		j := l.oldest(0)
		if j == nil {
			break
		}
		l.closeFile(j)
		if err := os.Remove(l.path(j.job)); err != nil {
			l.notRemoved(j, err)
		}
		l.total -= j.size
		delete(l.jobs, j.job)
	}
	for l.total > l.cfg.TotalBytesMax {
		j := l.oldest(remarkMax)
		if j == nil {
			break
		}
		l.closeFile(j)
		text := fmt.Appendf(nil, "[the log of job %d on this worker was removed: all logs together have a limit of %d bytes]\n", j.job, l.cfg.TotalBytesMax)
		remark := appendRecord(nil, &Record{Text: text})
		if err := os.WriteFile(l.path(j.job), remark, 0o600); err != nil {
			l.notRemoved(j, err)
		}
		l.total += int64(len(remark)) - j.size
		j.size, j.checked, j.full, j.lost = int64(len(remark)), true, false, lostText{}
	}
}

func (l *Log) notRemoved(j *jobLog, err error) {
	l.cfg.Logger.Warn("task log not removed", "job", j.job, "error", err)
}

// remarkMax is more than the size of a log that was replaced by a remark.
const remarkMax = 256

// oldest returns the least recently written log of more than so many bytes, except the latest; nil: none. Logs with readers, or with text to
// be written, are kept.
func (l *Log) oldest(moreThan int64) (oldest *jobLog) {
	for _, j := range l.jobs {
		if j.readers == 0 && len(j.buf) == 0 && j.size > moreThan && j.used != l.clock && (oldest == nil || j.used < oldest.used) {
			oldest = j
		}
	}
	return oldest
}

func (l *Log) runFlusher() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-l.dirty:
		case <-l.closing:
			return
		}
		timer.Reset(l.cfg.FlushDelay)
		select {
		case <-timer.C:
		case <-l.closing:
			return
		}
		l.Flush()
	}
}

// Flush writes the buffered text, which then survives this process.
func (l *Log) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.unwritten) > 0 {
		l.write(l.unwritten[0])
	}
	l.prune()
}

// Close writes the buffered text, and ends the calls that follow.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for _, j := range l.jobs {
		l.write(j)
		l.closeFile(j)
	}
	l.mu.Unlock()
	close(l.closing)
	l.flusher.Wait()
	return nil
}

// Query selects records.
type Query struct {
	Job     uint64
	OneTask bool // then Stage and Index count
	Stage   uint32
	Index   uint64
	Follow  bool // continue with records written later
}

func (q *Query) matches(r *Record) bool {
	return r.remark() || !q.OneTask || r.Stage == q.Stage && r.Index == q.Index
}

// Read calls f for the records of a query, in the order of their writing, and caughtUp whenever it has reached the end. With
// Follow it returns nil when ctx ends or the Log is closed. Without, an error after all records says that text was lost behind them.
func (l *Log) Read(ctx context.Context, q Query, f func(*Record) error, caughtUp func() error) error {
	l.mu.Lock()
	j := l.job(q.Job)
	j.readers++
	l.mu.Unlock()
	defer l.readDone(j)

	var at, clock int64
	for last := !q.Follow; ; {
		l.mu.Lock()
		l.write(j)
		size, grown, lost := j.size, j.grown, j.lost
		l.mu.Unlock()
		if size > at {
			n, err := l.readFrom(q, at, size, &clock, f)
			if err != nil {
				return err
			}
			// There is nothing behind a torn record until an append replaces it.
			at += n
		}
		if err := caughtUp(); err != nil {
			return err
		}
		switch {
		case !last:
		case q.Follow:
			return nil
		case lost.err != nil:
			return fmt.Errorf("%d bytes of the log of job %d were lost: %w", lost.bytes, q.Job, lost.err)
		case at < size:
			return fmt.Errorf("%d bytes of the log of job %d were lost: %w", size-at, q.Job, errTorn)
		default:
			return nil
		}
		select {
		case <-grown:
		case <-l.closing:
			last = true // once more, for the last records
		case <-ctx.Done():
			return nil
		}
	}
}

// readDone drops a job that has no log.
func (l *Log) readDone(j *jobLog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j.readers--
	if j.readers == 0 && j.size == 0 && len(j.buf) == 0 && j.file == nil && j.lost.err == nil && l.jobs[j.job] == j {
		delete(l.jobs, j.job)
	}
}

// readFrom reads a part of a file, which begins at a time that it keeps up to date.
func (l *Log) readFrom(q Query, from, to int64, clock *int64, f func(*Record) error) (n int64, err error) {
	file, err := os.Open(l.path(q.Job))
	if err != nil {
		return 0, fmt.Errorf("log of job %d: %w", q.Job, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	d := newDecoder(io.NewSectionReader(file, from, to-from))
	var rec Record
	for {
		err := d.next(&rec)
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			return d.n, nil
		}
		if err != nil {
			return d.n, fmt.Errorf("log of job %d: %w", q.Job, err)
		}
		if now, ok := rec.clock(); ok {
			*clock = now
			continue
		}
		if !q.matches(&rec) {
			continue
		}
		rec.Time = *clock
		if err := f(&rec); err != nil {
			return d.n, err
		}
	}
}
