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

// Logs are the log records that q asks for. With q.Follow the sequence goes on until the job has ended. A broken connection is
// taken up again where it broke, for up to Options.WaitPatience. The sequence ends after its first error.
func (c *Client) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogRecord, error] {
	return func(yield func(api.LogRecord, error) bool) {
		l := logs{c: c, yield: yield, seen: map[attemptName]int64{}}
		if err := l.run(ctx, q); err != nil {
			yield(api.LogRecord{}, err)
		}
	}
}

// logs reads one log through any number of connections. The leader sends each attempt's bytes in the same order every time, so
// counting them is enough to go on where the last connection broke.
type logs struct {
	c     *Client
	yield func(api.LogRecord, error) bool
	seen  map[attemptName]int64 // bytes given to the caller
	moved time.Time             // when the caller was last given something
}

// attemptName is by lease: an attempt that was lost unseen and the one after it may have one number.
type attemptName struct {
	task  string
	lease uint64
}

var errEnough = errors.New("the caller wants no more")

func (l *logs) run(ctx context.Context, q api.LogQuery) error {
	request := get(LogsPath(q))
	request.timeout = 0 // it may be long silent
	wait := 50 * time.Millisecond
	var lost time.Time // when the first of a row of useless connections broke
	for {
		moved, begun := l.moved, time.Now()
		err := l.connection(ctx, request)
		switch {
		case err == nil, errors.Is(err, errEnough):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, errBroken):
			return err
		}
		request.patience = l.c.options.WaitPatience
		// A job may be silent for hours: a connection that held for a while was of use though it brought nothing.
		if lost.IsZero() || l.moved.After(moved) || time.Since(begun) > time.Minute {
			lost, wait = time.Now(), 50*time.Millisecond
		}
		if time.Since(lost) > l.c.options.WaitPatience {
			return fmt.Errorf("%w: logs of job %d: %w", ErrUnreachable, q.Job, err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, 2*time.Second)
	}
}

var errBroken = errors.New("connection broke")

// connection reads until the log ends (nil), the caller has enough, or the connection breaks.
func (l *logs) connection(ctx context.Context, q request) error {
	var body io.ReadCloser
	if err := l.c.send(ctx, q, func(r *http.Response) error {
		body = r.Body
		return nil
	}); err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read
	skip := maps.Clone(l.seen)
	dec := json.NewDecoder(body)
	for {
		var record api.LogRecord
		err := dec.Decode(&record)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		name := attemptName{task: record.Task, lease: record.Lease}
		known := min(skip[name], int64(len(record.Text)))
		skip[name] -= known
		if record.Text = record.Text[known:]; known > 0 && len(record.Text) == 0 {
			continue
		}
		l.seen[name] += int64(len(record.Text))
		l.moved = time.Now()
		if !l.yield(record, nil) {
			return errEnough
		}
	}
}
