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

// Result is the result of an ended job. Who reads it to the end without an error has all of it. Close it.
func (c *Client) Result(ctx context.Context, id uint64) (io.ReadCloser, error) {
	q := get(JobPath(id) + "/result")
	q.timeout = 0 // it may be long
	var body io.ReadCloser
	err := c.send(ctx, q, func(r *http.Response) error {
		body = &result{ReadCloser: r.Body, id: id}
		return nil
	})
	return body, err
}

// result says what was being read when the connection broke.
type result struct {
	io.ReadCloser
	id  uint64
	got int64
}

func (r *result) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.got += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("result of job %d broke off after %d bytes; fetch it again: %w", r.id, r.got, err)
	}
	return n, err
}

// LogsPath is the path of the logs that q asks for; what it gives is JSON lines.
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

// logsQuietMax is for how long a followed log may bring nothing, not even the empty lines that say it goes on.
const logsQuietMax = 30 * time.Second

// Logs are the log records that q asks for. With q.Follow the sequence goes on until the job has ended. A broken connection is
// taken up again where it broke, with whichever leader answers, for up to Options.WaitPatience. The sequence ends after its
// first error.
func (c *Client) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogRecord, error] {
	return func(yield func(api.LogRecord, error) bool) {
		l := logs{yield: yield, seen: map[attemptName]int64{}}
		request := get(LogsPath(q))
		if q.Follow {
			request.quietMax = logsQuietMax
		}
		if err := c.endure(ctx, &request, fmt.Sprintf("logs of job %d", q.Job), l.read); err != nil {
			yield(api.LogRecord{}, err)
		}
	}
}

// logs reads one log through any number of connections. The leader sends each attempt's bytes in the same order every time, so
// counting them is enough to go on where the last connection broke.
type logs struct {
	yield func(api.LogRecord, error) bool
	seen  map[attemptName]int64 // bytes given to the caller
}

// attemptName is by lease: an attempt that was lost unseen and the one after it may have one number.
type attemptName struct {
	task  string
	lease uint64
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
		name := attemptName{task: record.Task, lease: record.Lease}
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
	errEnough = errors.New("the caller wants no more")
)

// reader reads one connection of a stream, and says whether it brought anything new. Its error is nil when the stream is over,
// errEnough when the caller wants no more, and errBroken when the stream is to go on with another connection.
type reader func(body io.Reader) (moved bool, err error)

// usefulTime is from when on a connection was of use though it brought nothing: a stream may be silent for hours.
const usefulTime = 5 * time.Second

// endure reads a stream through as many connections as it takes. q is changed between them: by itself, and by read.
func (c *Client) endure(ctx context.Context, q *request, what string, read reader) error {
	q.timeout = 0      // it may be long
	var lost time.Time // when the first of a row of useless connections broke
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
		q.patience, q.goesOn = c.options.WaitPatience, true
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
