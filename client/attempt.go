package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

const (
	// silenceMax is the silence of a server before it is probed, and probeTimeout that of the probe: together a little more than
	// an election takes. After each answered probe the next one comes later.
	silenceMax       = 800 * time.Millisecond
	probeTimeout     = 700 * time.Millisecond
	probeIntervalMax = 4 // times silenceMax

	// redirectsMax bounds the redirects of one attempt: leaders that disagree about who leads would continue for ever.
	redirectsMax = 3

	// expectBytes is the size from which a body is sent only after the server has accepted it: one that refuses it answers before it
	// has read the body, and closes the connection if it is large.
	expectBytes = 64 << 10
)

// attempt sends a request to one server, and follows its redirects. It returns the last server.
func (c *Client) attempt(ctx context.Context, base string, q request, read func(*http.Response) error) (at string, err error) {
	target := base + c.freshPath(base, &q)
	for hop := 0; ; hop++ {
		answer, err := c.exchange(ctx, base, target, &q)
		if err != nil {
			return base, c.unreachable(base, q, err)
		}
		next := redirection(&q, answer)
		switch {
		case next == nil && answer.StatusCode >= http.StatusMultipleChoices:
			defer answer.Body.Close() //nolint:errcheck // only read
			err := asProblem(answer.Request, answer)
			if p, ok := errors.AsType[*api.Problem](err); ok && p.Type == api.TypeOutcomeUnknown {
				q.note()
			}
			return base, err
		case next == nil:
			index, err := strconv.ParseUint(answer.Header.Get("X-Bridgefour-Index"), 10, 64)
			c.servers.answered(base, index, err == nil)
			if err := read(answer); err != nil {
				return base, errors.Join(c.unreachable(base, q, err), answer.Body.Close())
			}
			return base, nil
		}
		if err := answer.Body.Close(); err != nil {
			return base, c.unreachable(base, q, err)
		}
		if hop == redirectsMax {
			return base, fmt.Errorf("%w: too many redirects, the last by %s: the leaders do not agree which of them leads", ErrUnreachable, transport.Display(base))
		}
		if host := next.Scheme + "://" + next.Host; !strings.HasPrefix(base+"/", host+"/") {
			base = host
		}
		target = next.String()
	}
}

// redirection is the target of a redirect; nil: the answer is none.
func redirection(q *request, answer *http.Response) *url.URL {
	switch answer.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if q.method != http.MethodGet {
			return nil // the request would become a GET
		}
	default:
		return nil
	}
	next, err := answer.Location()
	secure := answer.Request.URL.Scheme == "https"
	if err != nil || next.Host == "" || next.Scheme != "https" && (next.Scheme != "http" || secure) {
		return nil
	}
	return next
}

// exchange sends a request once. The caller closes the body of the answer.
func (c *Client) exchange(ctx context.Context, base, target string, q *request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	release := func() { cancel(nil) }
	if q.timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, q.timeout)
		release = func() { stop(); cancel(nil) }
	}
	r, err := http.NewRequestWithContext(ctx, q.method, target, http.NoBody)
	if err != nil {
		release()
		return nil, err
	}
	if q.body.size > 0 {
		r.Header.Set("Content-Type", q.body.kind)
		r.Body, r.ContentLength = io.NopCloser(q.body.open()), q.body.size
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(q.body.open()), nil }
	}
	c.authorize(r)
	if q.key != "" {
		r.Header.Set("Idempotency-Key", q.key)
	}
	if q.lastSeen != "" {
		r.Header.Set("Last-Event-ID", q.lastSeen)
	}
	if q.body.size >= expectBytes {
		r.Header.Set("Expect", "100-continue")
	}
	w := &watch{begun: time.Now(), silenceMax: c.silenceMax, quietMax: q.quietMax, cancel: cancel, release: release, ended: make(chan struct{})}
	if !q.again { // it cannot be sent to another leader, so ending it early gains nothing
		w.silenceMax = max(w.silenceMax, c.options.Patience)
	}
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

// errSilent is the cause of the end of an attempt whose server hangs.
var errSilent = errors.New("the server hangs")

// watch ends an attempt whose server hangs: it has sent nothing for a while, and does not answer a probe either. A server that
// only needs long (to list a large input, or because a job is silent) answers the probe, and gets all the time it needs.
type watch struct {
	begun      time.Time
	heard      atomic.Int64  // when the last byte came, or the wait for one started: nanoseconds since begun
	idle       atomic.Bool   // the caller does not wait: it processes the bytes it has
	silenceMax time.Duration // the server is probed then
	quietMax   time.Duration
	cancel     context.CancelCauseFunc
	release    func()
	ended      chan struct{}
}

// quiet is how long the caller has been waiting for bytes.
func (w *watch) quiet() time.Duration {
	if w.idle.Load() {
		return 0
	}
	return time.Since(w.begun) - time.Duration(w.heard.Load())
}

// note records that a byte has come, or that the wait for one starts; idle: the caller does not wait from now on.
func (w *watch) note(idle bool) {
	w.heard.Store(int64(time.Since(w.begun)))
	w.idle.Store(idle)
}

func (w *watch) run(ctx context.Context, c *Client, base string) {
	timer := time.NewTimer(w.silenceMax)
	defer timer.Stop()
	for interval := w.silenceMax; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := w.silenceMax - w.quiet()
		if next <= 0 {
			interval = min(2*interval, probeIntervalMax*w.silenceMax)
			next = interval
			_, _, err := c.probe(ctx, base+"/healthz")
			if quiet := w.quiet(); quiet >= w.silenceMax && err != nil && !isCertificateError(err) || w.quietMax > 0 && quiet > w.quietMax {
				w.cancel(fmt.Errorf("%w: no data from %s for %v", errSilent, transport.Display(base), quiet.Round(time.Millisecond)))
				return
			}
		}
		timer.Reset(next)
	}
}

// isCertificateError reports whether a server has shown a certificate that is not accepted. It does not hang: the certificate may have been replaced
// since the request was sent.
func isCertificateError(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok || errors.Is(err, transport.ErrOtherAuthority)
}

// explain returns the reason if the watch has ended the attempt, else err.
func (w *watch) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return cause
	}
	return err
}

// end ends the watch and waits for it.
func (w *watch) end() {
	w.release()
	<-w.ended
}

// watchedBody is the body of an answer, watched until it is closed.
type watchedBody struct {
	io.ReadCloser
	ctx   context.Context //nolint:containedctx // of the request: its cause is why the body ended
	watch *watch
	base  string // of the server
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

// freshPath is the path of q, with the position that the client has seen: a server that is behind it catches up before it answers.
func (c *Client) freshPath(base string, q *request) string {
	latest := c.servers.position()
	if q.method != http.MethodGet || latest.index == 0 || strings.Contains(q.path, "min_index=") || strings.Contains(q.path, "consistency=") {
		return q.path
	}
	// The server of the last answer has that position. After a restart it may be behind for a moment, which matters to a call
	// that continues an earlier one; or it may be a new cluster on the same address, which matters to the others.
	if latest.url == base && !q.continues {
		return q.path
	}
	sep := "?"
	if strings.Contains(q.path, "?") {
		sep = "&"
	}
	return q.path + sep + "min_index=" + strconv.FormatUint(latest.index, 10)
}

// ageOf is the time since the server last heard from the leader.
func ageOf(r *http.Response) time.Duration {
	ms, err := strconv.ParseInt(r.Header.Get("X-Bridgefour-Age"), 10, 64)
	if err != nil {
		return 0 // a version without several leaders
	}
	return time.Duration(ms) * time.Millisecond
}
