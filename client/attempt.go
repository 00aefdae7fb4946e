package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// silenceMax is how long a leader may send nothing before it is probed, and probeTimeout how long the probe may take: together a
	// little more than the others need to elect another. One that has answered a probe is left in peace for longer.
	silenceMax   = 800 * time.Millisecond
	probeTimeout = 700 * time.Millisecond
	peaceMax     = 4 // times silenceMax

	// redirectsMax bounds how often one attempt is sent on: leaders that do not agree about who leads would do it for ever.
	redirectsMax = 3

	// expectBytes is from what size on a body is sent only after the leader has said that it takes it: a follower redirects
	// before it has read a body, and breaks the connection off where it is large.
	expectBytes = 64 << 10
)

// attempt sends a request to one leader, and where that one says to. It returns who was asked last.
func (c *Client) attempt(ctx context.Context, base string, q request, read func(*http.Response) error) (at string, err error) {
	target := base + c.freshPath(base, &q)
	for hop := 0; ; hop++ {
		answer, err := c.exchange(ctx, base, target, &q)
		if err != nil {
			return base, c.unreachable(q, err)
		}
		next := redirection(&q, answer)
		switch {
		case next == nil && answer.StatusCode >= http.StatusMultipleChoices:
			defer answer.Body.Close() //nolint:errcheck // only read
			return base, asProblem(answer.Request, answer)
		case next == nil:
			index, err := strconv.ParseUint(answer.Header.Get("X-Bridgefour-Index"), 10, 64)
			c.servers.answered(base, index, err == nil)
			if err := read(answer); err != nil {
				return base, errors.Join(c.unreachable(q, err), answer.Body.Close())
			}
			return base, nil
		}
		if err := answer.Body.Close(); err != nil {
			return base, c.unreachable(q, err)
		}
		if hop == redirectsMax {
			return base, fmt.Errorf("%w: the leaders send each other this request: they do not agree who leads; the last was %s", ErrUnreachable, base)
		}
		if host := next.Scheme + "://" + next.Host; !strings.HasPrefix(base+"/", host+"/") {
			base = host
		}
		target = next.String()
	}
}

// redirection is where the answer sends the request; nil: it does not.
func redirection(q *request, answer *http.Response) *url.URL {
	switch answer.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if q.method != http.MethodGet {
			return nil // it would become a GET
		}
	default:
		return nil
	}
	next, err := answer.Location()
	if err != nil || next.Host == "" || next.Scheme != "http" && next.Scheme != "https" {
		return nil
	}
	return next
}

// exchange sends a request once. The body of the answer must be closed.
func (c *Client) exchange(ctx context.Context, base, target string, q *request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	release := func() { cancel(nil) }
	if q.timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, q.timeout)
		release = func() { stop(); cancel(nil) }
	}
	r, err := http.NewRequestWithContext(ctx, q.method, target, bytes.NewReader(q.body))
	if err != nil {
		release()
		return nil, err
	}
	if q.kind != "" {
		r.Header.Set("Content-Type", q.kind)
	}
	if q.key != "" {
		r.Header.Set("Idempotency-Key", q.key)
	}
	if q.lastSeen != "" {
		r.Header.Set("Last-Event-ID", q.lastSeen)
	}
	if len(q.body) >= expectBytes {
		r.Header.Set("Expect", "100-continue")
	}
	w := &watch{begun: time.Now(), quietMax: q.quietMax, cancel: cancel, release: release, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		w.run(ctx, c, base)
	}()
	answer, err := c.http.Do(r)
	if err != nil {
		err = w.explain(ctx, err)
		w.end()
		return nil, err
	}
	w.note(true)
	answer.Body = &watchedBody{ReadCloser: answer.Body, ctx: ctx, watch: w, base: base}
	return answer, nil
}

// errSilent ends an attempt.
var errSilent = errors.New("it hangs")

// watch ends an attempt whose leader hangs: nothing has come for a while, and nothing comes to a probe either. One that only
// takes long (a large input is listed, a job is silent) answers the probe, and has all the time it needs.
type watch struct {
	begun    time.Time
	heard    atomic.Int64 // when the last byte came, or somebody began to wait for one: nanoseconds since begun
	idle     atomic.Bool  // nobody waits for bytes: the caller works on those he has
	quietMax time.Duration
	cancel   context.CancelCauseFunc
	release  func()
	ended    chan struct{}
}

// quiet is for how long somebody has waited for bytes in vain.
func (w *watch) quiet() time.Duration {
	if w.idle.Load() {
		return 0
	}
	return time.Since(w.begun) - time.Duration(w.heard.Load())
}

// note says that a byte has come, or that the wait for one begins; idle: nobody waits from now on.
func (w *watch) note(idle bool) {
	w.heard.Store(int64(time.Since(w.begun)))
	w.idle.Store(idle)
}

func (w *watch) run(ctx context.Context, c *Client, base string) {
	timer := time.NewTimer(c.silenceMax)
	defer timer.Stop()
	for peace := c.silenceMax; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := c.silenceMax - w.quiet()
		if next <= 0 {
			peace = min(2*peace, peaceMax*c.silenceMax)
			next = peace
			_, _, err := c.probe(ctx, base+"/healthz")
			if quiet := w.quiet(); quiet >= c.silenceMax && err != nil || w.quietMax > 0 && quiet > w.quietMax {
				w.cancel(fmt.Errorf("%w: nothing came from %s for %v", errSilent, base, quiet.Round(time.Millisecond)))
				return
			}
		}
		timer.Reset(next)
	}
}

// explain gives the reason why the watch has ended an attempt, if it has.
func (w *watch) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return cause
	}
	return err
}

// end returns when the watch is over.
func (w *watch) end() {
	w.release()
	<-w.ended
}

// watchedBody is the body of an answer, watched until it is closed.
type watchedBody struct {
	io.ReadCloser
	ctx   context.Context //nolint:containedctx // that of the request: it says why the body ended
	watch *watch
	base  string // who sends it
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.note(false)
	n, err := b.ReadCloser.Read(p)
	b.watch.note(true)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.watch.explain(b.ctx, err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.watch.release()
	err := b.ReadCloser.Close()
	b.watch.end()
	return err
}

// freshPath is the path of q, such that a leader that is behind what the client has seen catches up before it answers.
func (c *Client) freshPath(base string, q *request) string {
	latest := c.servers.position()
	if q.method != http.MethodGet || latest.index == 0 || strings.Contains(q.path, "min_index=") || strings.Contains(q.path, "consistency=") {
		return q.path
	}
	// The leader that gave the last answer has that. After a restart it may be behind for a moment, which matters to who goes
	// on; and it may be another cluster, made anew on the same address, which matters to who only asks.
	if latest.url == base && !q.goesOn {
		return q.path
	}
	sep := "?"
	if strings.Contains(q.path, "?") {
		sep = "&"
	}
	return q.path + sep + "min_index=" + strconv.FormatUint(latest.index, 10)
}

// ageOf is how long before the answer its sender had heard from the leader.
func ageOf(r *http.Response) time.Duration {
	ms, err := strconv.ParseInt(r.Header.Get("X-Bridgefour-Age"), 10, 64)
	if err != nil {
		return 0 // not said: a leader of before there were several
	}
	return time.Duration(ms) * time.Millisecond
}
