// Package client is the Go client of a Bridge Four cluster: submit, watch, fetch.
//
// A Client knows one or more leaders. A call tries them in turn, and keeps trying for a while if none answers, so the restart of
// a leader or a change of leaders is a pause and not an error. A leader that hangs delays a call only briefly: if it sends
// nothing for a few seconds and does not answer a probe, the call goes to the next one. Calls that may last (Poll, Wait, Logs,
// Events) first list the other leaders, and continue with those without a gap or a repetition. An answer is never older than
// the one before it, whichever leader gave it. Errors are *api.Problem if the cluster rejected the request, and match
// ErrUnreachable if no leader answered.
package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// ErrUnreachable means that no leader answered. The error around it names the URLs tried and the last cause.
var ErrUnreachable = errors.New("cluster not reachable")

// Options of a Client. The zero value is usable.
type Options struct {
	// Patience is how long a call keeps trying while no leader answers. Defaults to 5 s; negative: every URL is tried once.
	Patience time.Duration
	// WaitPatience is the same for Wait, Logs and Events, once they have reached the cluster. Defaults to 10 min.
	WaitPatience time.Duration
	// OnReconnect, if set, is called when a call finds no leader, and when it has found one again, once each, by the goroutine
	// of the call. Defaults to none.
	OnReconnect func(Reconnect)
	// Access, if set, is how to reach the cluster, and who the client is there. Defaults to none: requests are from the user of the process
	// if the cluster runs on this machine.
	Access *Access
	// OnLeaders, if set, is called with the addresses of all leaders, host:port, when the cluster has listed them: in calls that may last, and
	// after a call that one of the known leaders has not answered. Defaults to none.
	OnLeaders func(addresses []string)
	// HTTP, if set, is used instead of a default HTTP client. It must have no Timeout; its CheckRedirect is ignored.
	HTTP *http.Client
}

// Reconnect is the argument of OnReconnect.
type Reconnect struct {
	Err   error         // why no leader was reached; nil: one answers again
	After time.Duration // since the first error of the call
	Tries time.Duration // how long the call keeps trying, from the first error
}

// Client calls the HTTP API of a cluster. It is safe for concurrent use.
type Client struct {
	options Options
	http    *http.Client
	servers *servers
	scheme  string // of leaders of which only the address is known

	silenceMax   time.Duration // of a server before it is probed
	probeTimeout time.Duration
}

// New returns a client of the leaders at urls: http://host:port, host:port, or unix:PATH of a leader on this machine. Without any, they are
// those of Options.Access.
func New(urls []string, o Options) (*Client, error) {
	pin, err := o.Access.pin()
	if err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	files := o.Access.outside()
	outside := files != (transport.Files{})
	c := &Client{options: o, servers: &servers{}, scheme: transport.Scheme, silenceMax: silenceMax, probeTimeout: probeTimeout}
	if pin != nil || outside {
		c.scheme = "https"
	}
	if len(urls) == 0 && o.Access != nil {
		urls = o.Access.Cluster
	}
	for _, s := range urls {
		base, err := c.baseURL(s)
		if err != nil {
			return nil, err
		}
		c.servers.list = append(c.servers.list, server{url: base, given: true})
	}
	if len(c.servers.list) == 0 {
		return nil, errors.New("no URL of a cluster given")
	}
	if c.options.Patience == 0 {
		c.options.Patience = 5 * time.Second
	}
	if c.options.WaitPatience == 0 {
		c.options.WaitPatience = 10 * time.Minute
	}
	if o.HTTP != nil {
		c.http = new(*o.HTTP)
	} else {
		t := transport.NewHTTP()
		switch {
		case outside:
			cfg, err := files.ClientTLS()
			if err != nil {
				return nil, fmt.Errorf("access: %w", err)
			}
			t = transport.NewHTTPS(cfg)
		case pin != nil:
			t = transport.NewHTTPS(transport.ClientTLS("leader", func() []transport.Pin { return []transport.Pin{*pin} }, nil))
		}
		t.Proxy = func(r *http.Request) (*url.URL, error) {
			if transport.IsUnix(r.URL.Host) {
				return nil, nil //nolint:nilnil // no proxy
			}
			return http.ProxyFromEnvironment(r)
		}
		c.http = &http.Client{Transport: t}
	}
	// The client follows redirects itself: they name the leader.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

func (c *Client) baseURL(s string) (string, error) {
	full := s
	if !strings.Contains(s, "://") {
		if _, ok := transport.UnixPath(s); ok {
			address, err := transport.ParseDial(s)
			if err != nil {
				return "", err
			}
			full = transport.URL(address)
		} else {
			full = c.scheme + "://" + s
		}
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", fmt.Errorf("invalid cluster URL %q: want http://host:port", s)
	}
	return strings.TrimRight(u.Scheme+"://"+u.Host+u.Path, "/"), nil
}

// URLs are the leaders that the client knows: those it was given, and those that the cluster has listed.
func (c *Client) URLs() []string {
	urls, _ := c.servers.urls()
	for i, url := range urls {
		urls[i] = transport.Display(url)
	}
	return urls
}

// WithPatience returns a client with another Options.Patience. Its answers are never older than those of c.
func (c *Client) WithPatience(d time.Duration) *Client {
	other := *c
	other.options.Patience = d
	return &other
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// payload is the body of a request, which may be sent several times. The zero value is no body.
type payload struct {
	kind string // content type
	size int64
	open func() io.Reader
}

func jsonPayload(v any) (payload, error) {
	b, err := json.Marshal(v)
	return payload{kind: "application/json", size: int64(len(b)), open: func() io.Reader { return bytes.NewReader(b) }}, err
}

// request is one call of the API.
type request struct {
	method   string
	path     string // with its query
	body     payload
	key      string        // Idempotency-Key
	lastSeen string        // Last-Event-ID
	again    bool          // may be sent again if it may have been carried out
	timeout  time.Duration // of one attempt, including the body of the answer; 0: none
	patience time.Duration // 0: Options.Patience
	// continues: it is one of several calls, to any of the leaders, whose answers must fit together.
	continues bool
	quietMax  time.Duration // a stream that is silent for longer is broken; 0: it may be silent
	unknown   *bool         // set when an attempt may have been carried out, though its answer does not say so; nil: it is not needed
}

// attemptTimeout bounds one attempt of an ordinary call: those are answered from memory or after one fsync.
const attemptTimeout = 15 * time.Second

func get(path string) request { return repeatable(http.MethodGet, path) }

func repeatable(method, path string) request {
	q := change(method, path)
	q.again = true
	return q
}

// change is a request that is not sent again unless it is known not to have arrived.
func change(method, path string) request {
	return request{method: method, path: path, timeout: attemptTimeout}
}

// remove removes what has a path. Once an attempt may have done it, 404 is the answer to another one.
func (c *Client) remove(ctx context.Context, path string) error {
	q := repeatable(http.MethodDelete, path)
	q.unknown = new(bool)
	err := c.call(ctx, q, nil)
	if *q.unknown && api.IsStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// ask sends a request and decodes the answer.
func ask[T any](ctx context.Context, c *Client, q request) (v T, err error) {
	err = c.call(ctx, q, &v)
	return v, err
}

// askWith is ask of a request whose body is in.
func askWith[T any](ctx context.Context, c *Client, q request, in any) (v T, err error) {
	if q.body, err = jsonPayload(in); err != nil {
		return v, err
	}
	return ask[T](ctx, c, q)
}

// call sends a request and decodes the answer into v, if v is not nil.
func (c *Client) call(ctx context.Context, q request, v any) error {
	raw, err := c.raw(ctx, q)
	if err != nil || v == nil {
		return err
	}
	return q.decode(raw, v)
}

// decode reads an answer into v.
func (q *request) decode(raw []byte, v any) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s %s: not the answer of a Bridge Four leader: %w", q.method, q.path, err)
	}
	return nil
}

// raw sends a request and returns the body of the answer.
func (c *Client) raw(ctx context.Context, q request) ([]byte, error) {
	var body []byte
	err := c.send(ctx, q, func(r *http.Response) error {
		var err error
		body, err = readBody(r)
		return err
	})
	return body, err
}

// readBody reads an answer to its end, so that its connection can be used again.
func readBody(r *http.Response) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	return body, errors.Join(err, r.Body.Close())
}

// Raw returns the JSON of GET path, such as /v1/jobs/3, exactly as the cluster sent it.
func (c *Client) Raw(ctx context.Context, path string) (json.RawMessage, error) {
	return c.raw(ctx, get(path))
}

// send sends a request, and passes a successful answer to read. A request that came too fast is sent again when the leader says so.
func (c *Client) send(ctx context.Context, q request, read func(*http.Response) error) error {
	patience, begun := cmp.Or(q.patience, c.options.Patience), time.Now()
	for {
		err := c.reach(ctx, q, patience, read)
		if err == nil && c.options.OnLeaders != nil && c.servers.outdated() {
			c.listServers(ctx)
		}
		after := retryAfter(err)
		if after == 0 || time.Since(begun)+2*after > patience {
			return err
		}
		if err := pause(ctx, after*3/2); err != nil {
			return err
		}
	}
}

// reach tries the leaders until one answers, and passes a successful answer to read. If read fails, the answer was cut short: the
// request is sent again if it may be.
func (c *Client) reach(ctx context.Context, q request, patience time.Duration, read func(*http.Response) error) error {
	var lost time.Time // the time of the first error
	for {
		err, refused := c.round(ctx, q, read)
		if err == nil || !q.isPassing(err) {
			if !lost.IsZero() {
				c.report(Reconnect{After: time.Since(lost), Tries: patience})
				if q.continues && err == nil {
					c.listServers(ctx) // they may have changed meanwhile
				}
			}
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if lost.IsZero() {
			lost = time.Now()
			if patience > 0 {
				c.report(Reconnect{Err: err, Tries: patience})
			}
		}
		wait := backOff(lost)
		if time.Since(lost)+wait > patience {
			return cmp.Or(refused, err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// backOff is the wait before the next try. An election takes about a second, so the first tries come soon.
func backOff(lost time.Time) time.Duration {
	return min(max(50*time.Millisecond, time.Since(lost)/4), 2*time.Second)
}

func (c *Client) report(r Reconnect) {
	if c.options.OnReconnect != nil {
		c.options.OnReconnect(r)
	}
}

// pause waits for d, plus or minus a third: the clients of a restarted leader must not all return at once.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d*2/3 + rand.N(d*2/3))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retryAfter is when a request that came too fast may be sent again; 0: it did not.
func retryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return time.Duration(p.RetryAfter) * time.Second
	}
	return 0
}

// isPassing reports whether trying again may help, and may be done.
func (q *request) isPassing(err error) bool {
	if _, ok := errors.AsType[*unknownOutcomeError](err); ok {
		return false
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		if p.Type == api.TypeOutcomeUnknown {
			return q.again
		}
		// A leader that is not ready, or a proxy without a backend.
		return p.Status == http.StatusServiceUnavailable || p.Status == http.StatusBadGateway
	}
	return errors.Is(err, ErrUnreachable)
}

// note records that an attempt may have been carried out.
func (q *request) note() {
	if q.unknown != nil {
		*q.unknown = true
	}
}

// unknownOutcomeError is the error of a request that may have been executed and must not be sent twice.
type unknownOutcomeError struct{ err error }

func (e *unknownOutcomeError) Error() string {
	return "the connection broke before the answer, so the request may or may not have been executed: " + e.err.Error()
}

func (e *unknownOutcomeError) Unwrap() error { return ErrUnreachable }

// certificateError is the error of a server of which the certificate is not accepted. Those of other servers may be.
type certificateError struct{ problem *api.Problem }

func (e *certificateError) Error() string { return e.problem.Error() }

func (e *certificateError) Unwrap() error { return e.problem }

// round tries every server once, starting with the one that answered last. refused is the error of the last one whose certificate is not
// accepted; err is that only if nothing else is wrong, since other servers may answer later.
func (c *Client) round(ctx context.Context, q request, read func(*http.Response) error) (err, refused error) {
	var last error
	var failed []string
	urls, first := c.servers.urls()
	for _, base := range slices.Concat(urls[first:], urls[:first]) {
		if slices.Contains(failed, base) {
			continue // tried already after a redirect; if it hangs, a second try would take long
		}
		at, err := c.attempt(ctx, base, q, read)
		_, untrusted := errors.AsType[*certificateError](err)
		switch {
		case untrusted:
			refused = err
		case err == nil || !q.isPassing(err):
			return err, nil
		default:
			last = err
		}
		c.servers.failed(base)
		failed = append(failed, at)
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		return refused, refused
	}
	return last, refused
}

// unreachable is the error of an attempt that got no answer, or only a part of it.
func (c *Client) unreachable(base string, q request, err error) error {
	if urlError, ok := errors.AsType[*url.Error](err); ok {
		err = urlError.Err // without the method and the URL
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		err = errors.New("the server does not speak TLS: use http:// if that is intended")
	}
	if invalid, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &certificateError{api.NewProblem(http.StatusUnauthorized, "not authenticated: the certificate of %s is not accepted: %v; a cluster with an authority of "+
			"its own is reached by the access that 'bridgefour login STRING' stores, and one with that of a company by --tls-ca FILE and a name in the certificate, which a "+
			"leader announces as its --advertise", transport.Display(base), invalid.Err)}
	}
	if errors.Is(err, transport.ErrOtherAuthority) {
		return &certificateError{api.NewProblem(http.StatusUnauthorized, "not authenticated: %v; if the string was copied as a whole, a new one of 'bridgefour token create' "+
			"on a leader's machine, by 'bridgefour login STRING', gives access to the cluster that runs there now", err)}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Net == "unix" && errors.Is(err, fs.ErrPermission) {
		return api.NewProblem(http.StatusForbidden, "not allowed: the socket %v belongs to another user: run the command as that user, or use a token, which that user "+
			"creates with 'bridgefour token create'", op.Addr)
	}
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" {
		q.note()
		if !q.again {
			return &unknownOutcomeError{err: err}
		}
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, strings.Join(c.URLs(), ", "), err)
}

// clockText says that the clock of the server, which sent this date, differs from that of this machine; empty if it does not.
func clockText(date string, now time.Time) string {
	const differenceMax = 5 * time.Minute
	at, err := http.ParseTime(date)
	d := at.Sub(now).Round(time.Minute)
	switch {
	case err != nil || d.Abs() < differenceMax:
		return ""
	case d > 0:
		return fmt.Sprintf(". The clock of the leader is %v ahead of the one of this machine", d)
	}
	return fmt.Sprintf(". The clock of the leader is %v behind the one of this machine", -d)
}

// asProblem reads an error answer.
func asProblem(r *http.Request, answer *http.Response) error {
	const bodyMax = 1 << 20
	body, err := io.ReadAll(io.LimitReader(answer.Body, bodyMax))
	p := &api.Problem{}
	if err == nil && json.Unmarshal(body, p) == nil && p.Status != 0 {
		switch p.Status {
		case http.StatusTooManyRequests:
			p.RetryAfter, _ = strconv.Atoi(answer.Header.Get("Retry-After")) // 0: there is none, or a date
		case http.StatusUnauthorized:
			p.Detail += clockText(answer.Header.Get("Date"), time.Now())
		}
		return p
	}
	return api.NewProblem(answer.StatusCode, "%s %s: answer %s, apparently not by a Bridge Four leader",
		r.Method, r.URL, answer.Status)
}
