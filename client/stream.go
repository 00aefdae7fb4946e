package client

import (
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
	q := get(JobPath(id) + "/result")
	q.timeout = 0 // the result may be long
	var body io.ReadCloser
	err := c.send(ctx, q, func(r *http.Response) error {
		body = &result{ReadCloser: r.Body, id: id}
		return nil
	})
	return body, err
}

// result adds the job and the offset to an error.
type result struct {
	io.ReadCloser
	id  uint64
	got int64
}

func (r *result) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.got += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("result of job %d broken off after %d bytes: fetch it again: %w", r.id, r.got, err)
	}
	return n, err
}

// LogsPath is the path of the logs that q selects, as JSON lines.
func LogsPath(q api.LogQuery) string {
	path, sep := JobPath(q.Job)+"/logs", "?"
	if q.OneTask {
		path, sep = path+sep+"task="+taskName(q.Stage, q.Index), "&"
	}
	if q.Follow {
		path += sep + "follow=true"
	}
	return path
}

// logsQuietMax bounds the silence of a followed log: empty lines are sent as heartbeats.
const logsQuietMax = 30 * time.Second

// Logs returns the log records that q selects. With q.Follow the sequence continues until the job has ended. After a broken
// connection it continues at the same record with any leader that answers, for up to Options.WaitPatience. The sequence ends
// after its first error.
func (c *Client) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogRecord, error] {
	return func(yield func(api.LogRecord, error) bool) {
		l := logs{yield: yield, seen: map[attemptName]int64{}}
		request := get(LogsPath(q))
		if q.Follow {
			request.quietMax = logsQuietMax
		}
		if err := c.stream(ctx, &request, fmt.Sprintf("logs of job %d", q.Job), l.read); err != nil {
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
		name := attemptName{task: record.Task, lease: record.Lease, kept: record.Kept, output: record.Output}
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
