package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// Result returns the result of an ended job. It is complete if it is read to the end without an error. The caller closes it.
func (c *Client) Result(ctx context.Context, id uint64) (io.ReadCloser, error) {
	return c.long(ctx, id, "result")
}

// Joblog returns a table of the tasks of a job that are done or dead. It is complete if it is read to the end without an error. The caller closes
// it.
func (c *Client) Joblog(ctx context.Context, id uint64) (io.ReadCloser, error) {
	return c.long(ctx, id, "joblog")
}

// long returns an answer about a job that may be long.
func (c *Client) long(ctx context.Context, id uint64, what string) (io.ReadCloser, error) {
	q := get(JobPath(id) + "/" + what)
	q.timeout = 0
	var body io.ReadCloser
	err := c.send(ctx, q, func(r *http.Response) error {
		body = &result{ReadCloser: r.Body, what: what, id: id}
		return nil
	})
	return body, err
}

// result adds the job and the offset to an error.
type result struct {
	io.ReadCloser
	what string
	id   uint64
	got  int64
}

func (r *result) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.got += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s of job %d broken off after %d bytes: fetch it again: %w", r.what, r.id, r.got, err)
	}
	return n, err
}

// Parts returns the outputs of a job's tasks as they finish, until the job has ended. After a broken connection it continues with any leader
// that answers, for up to Options.WaitPatience: nothing is missing or comes twice, but for Part.Final. The sequence ends after its first error. The text of a part
// is valid until the next one.
func (c *Client) Parts(ctx context.Context, q api.PartQuery) iter.Seq2[api.Part, error] {
	return func(yield func(api.Part, error) bool) {
		p := parts{yield: yield, query: q}
		request := get(p.path())
		request.quietMax = logsQuietMax
		if err := c.stream(ctx, &request, fmt.Sprintf("outputs of job %d", q.Job), func(body io.Reader) (bool, error) {
			moved, err := p.read(bufio.NewReaderSize(body, 64<<10))
			request.path = p.path()
			return moved, err
		}); err != nil {
			yield(api.Part{}, err)
		}
	}
}

// parts reads the outputs of one job through any number of connections. The output of a done task changes only if it is made again: see api.PartQuery.Sums.
type parts struct {
	yield func(api.Part, error) bool
	query api.PartQuery // with the end of what the caller has
	// done has a bit for each task, before the last one, whose output the caller has, if they come in any order: a new connection begins with
	// the last one and then sends all again.
	done []uint64
	text []byte
}

func (p *parts) path() string {
	q := &p.query
	return withQuery(JobPath(q.Job)+"/parts", parameters{"unordered": q.Unordered, "inputs": q.Inputs, "sums": q.Sums, "task": q.Task, "offset": q.Offset})
}

// read implements reader.
func (p *parts) read(body *bufio.Reader) (moved bool, err error) {
	for {
		line, err := body.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return moved, nil
		case err != nil:
			return moved, fmt.Errorf("%w: %w", errBroken, err)
		case len(line) == 1:
			continue // a sign of life
		}
		var part api.Part
		if err := json.Unmarshal(line, &part); err != nil || part.Bytes < 0 || part.Bytes > partBytesMax {
			return moved, fmt.Errorf("outputs of job %d: not the answer of a Bridge Four leader: %.80q", p.query.Job, line)
		}
		if part.Bytes > len(p.text) {
			p.text = make([]byte, part.Bytes)
		}
		part.Text = p.text[:part.Bytes]
		if _, err := io.ReadFull(body, part.Text); err != nil {
			return moved, fmt.Errorf("%w: %w", errBroken, err)
		}
		if !p.fresh(&part) {
			continue
		}
		moved = true
		if !p.yield(part, nil) {
			return moved, errEnough
		}
	}
}

// partBytesMax bounds a piece of an output.
const partBytesMax = 1 << 20

// fresh cuts off what the caller has, and reports whether anything is left.
func (p *parts) fresh(part *api.Part) bool {
	q := &p.query
	switch {
	case part.Final:
		return q.Sums
	case part.Task == q.Task:
		cut := min(q.Offset-min(q.Offset, part.Offset), uint64(part.Bytes)) //nolint:gosec // not negative
		part.Text, part.Offset = part.Text[cut:], part.Offset+cut
		part.Bytes = len(part.Text)
	case q.Unordered:
		if word := part.Task / 64; word < uint64(len(p.done)) && p.done[word]>>(part.Task%64)&1 != 0 {
			return false
		}
		word := q.Task / 64
		if word >= uint64(len(p.done)) {
			p.done = append(p.done, make([]uint64, word+1-uint64(len(p.done)))...)
		}
		if q.Offset > 0 {
			p.done[word] |= 1 << (q.Task % 64)
		}
	}
	q.Task, q.Offset = part.Task, part.Offset+uint64(part.Bytes) //nolint:gosec // not negative
	return part.Bytes > 0
}

// LogsPath is the path of the logs that q selects, as JSON lines.
func LogsPath(q api.LogQuery) string {
	p := parameters{"follow": q.Follow, "failed": q.Failed}
	if q.OneTask {
		p["task"] = fmt.Sprintf("%s/%d", q.Stage, q.Index)
	}
	if !q.Since.IsZero() {
		p["since"] = q.Since.UTC().Format(time.RFC3339Nano)
	}
	return withQuery(JobPath(q.Job)+"/logs", p)
}

// logsQuietMax bounds the silence of a followed log: empty lines are sent as heartbeats.
const logsQuietMax = 30 * time.Second

// Logs returns the log records that q selects. With q.Follow the sequence continues until the job has ended. After a broken
// connection it continues at the same record with any leader that answers, for up to Options.WaitPatience. The sequence ends
// after its first error.
func (c *Client) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogRecord, error] {
	return func(yield func(api.LogRecord, error) bool) {
		l := logs{yield: yield, seen: map[attemptName]int64{}}
		read := func(q api.LogQuery) error {
			request := get(LogsPath(q))
			if q.Follow {
				request.quietMax = logsQuietMax
			}
			return c.stream(ctx, &request, fmt.Sprintf("logs of job %d", q.Job), l.read)
		}
		if q.Tail > 0 { // what is there, and then what follows it
			tail := logTail{lines: q.Tail, follow: q.Follow, byName: map[attemptName]*attemptTail{}}
			there := q
			there.Follow = false
			l.yield = func(r api.LogRecord, _ error) bool { return tail.add(r) }
			err := read(there)
			if err != nil {
				yield(api.LogRecord{}, err)
				return
			}
			if !tail.emit(yield) || !q.Follow {
				return
			}
			l.yield = yield
		}
		if err := read(q); err != nil {
			yield(api.LogRecord{}, err)
		}
	}
}

// logs reads one log through any number of connections. Each attempt's bytes always come in the same order, so counting them is
// enough to continue after a broken connection.
type logs struct {
	yield func(api.LogRecord, error) bool
	seen  map[attemptName]int64 // bytes given to the caller
}

// attemptName includes the lease: an attempt lost without a report and the next one may have the same number.
type attemptName struct {
	task         string
	lease        uint64
	kept, output bool
}

func nameOf(r *api.LogRecord) attemptName {
	return attemptName{task: r.Task, lease: r.Lease, kept: r.Kept, output: r.Output}
}

// read implements reader.
func (l *logs) read(body io.Reader) (moved bool, err error) {
	skip := maps.Clone(l.seen)
	dec := json.NewDecoder(body)
	for {
		var record api.LogRecord
		err := dec.Decode(&record)
		if errors.Is(err, io.EOF) {
			return moved, nil
		}
		if err != nil {
			return moved, fmt.Errorf("%w: %w", errBroken, err)
		}
		name := nameOf(&record)
		known := min(skip[name], int64(len(record.Text)))
		skip[name] -= known
		if record.Text = record.Text[known:]; known > 0 && len(record.Text) == 0 {
			continue
		}
		l.seen[name] += int64(len(record.Text))
		moved = true
		if !l.yield(record, nil) {
			return moved, errEnough
		}
	}
}

var (
	errBroken = errors.New("connection broke")
	errEnough = errors.New("ended by the caller")
)

// reader reads one connection of a stream, and reports whether it brought anything new. Its error is nil at the end of the
// stream, errEnough if the caller ended it, and errBroken if the stream continues with another connection.
type reader func(body io.Reader) (moved bool, err error)

// usefulTime is the age from which a connection counts as useful although it brought nothing: a stream may be silent for hours.
const usefulTime = 5 * time.Second

// stream reads a stream through any number of connections. It changes q between them, and so may read.
func (c *Client) stream(ctx context.Context, q *request, what string, read reader) error {
	q.timeout = 0      // the stream may be long
	var lost time.Time // the end of the first of consecutive useless connections
	for {
		begun := time.Now()
		moved, err := c.connection(ctx, *q, read)
		switch {
		case err == nil, errors.Is(err, errEnough):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, errBroken):
			return err
		}
		q.patience, q.continues = c.options.WaitPatience, true
		if lost.IsZero() || moved || time.Since(begun) > usefulTime {
			lost = time.Now()
		}
		if time.Since(lost) > c.options.WaitPatience {
			return fmt.Errorf("%w: %s: %w", ErrUnreachable, what, err)
		}
		if err := pause(ctx, backOff(lost)); err != nil {
			return err
		}
	}
}

// connection opens one connection and reads it.
func (c *Client) connection(ctx context.Context, q request, read reader) (moved bool, err error) {
	var body *watchedBody
	if err := c.send(ctx, q, func(r *http.Response) error {
		body = r.Body.(*watchedBody) //nolint:forcetypeassert // as exchange makes it
		return nil
	}); err != nil {
		return false, err
	}
	defer body.Close() //nolint:errcheck // only read
	c.listServersOnce(ctx)
	moved, err = read(body)
	if errors.Is(err, errBroken) {
		c.servers.failed(body.base)
	}
	return moved, err
}
