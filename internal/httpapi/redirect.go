package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

const (
	// leaderMax bounds the wait of a request for a leader: an election takes about a second.
	leaderMax = 2 * time.Second
	// forwardSilence bounds the wait for the header of a forwarded request's answer: a submit may have a large input to list. A leader that
	// hangs is noticed sooner, by forwardCheck.
	forwardSilence = waitMax
	// forwardCheck is the interval at which a forwarded request checks that its node still leads.
	forwardCheck = 500 * time.Millisecond
)

// headerForwarded marks a forwarded request, with the follower's number. It is not forwarded again: two nodes that each believe the
// other leads would loop.
const headerForwarded = "X-Bridgefour-Forwarded"

// preferRedirect is the value of the header Prefer of clients that follow a redirect rather than have a request forwarded.
const preferRedirect = "redirect"

// unknownPattern matches requests without a route.
const unknownPattern = "/"

// newForwarding returns a client for forwarded requests.
func newForwarding(dial func(ctx context.Context, address string) (net.Conn, error)) *http.Client {
	t := transport.NewHTTP()
	if dial != nil { // it encrypts, if necessary
		t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }
	}
	t.ResponseHeaderTimeout = forwardSilence
	t.MaxIdleConnsPerHost = 16
	t.DisableCompression = true // answers are passed on unchanged
	return &http.Client{Transport: t}
}

// place is what a follower does with the requests of a route.
type place uint8

const (
	here       place = iota // answer them
	atLeader                // forward them to the leader
	byRedirect              // name the leader to the client, which proves something by its connection
)

// placeOf returns the place of a request: that of its route, else the leader for writes and the node for reads.
func (a *API) placeOf(r *http.Request, route string) place {
	if at, ok := a.places[route]; ok {
		return at
	}
	if isRead(r) || route == unknownPattern {
		return here
	}
	return atLeader
}

// onLeader marks a read that only the leader can answer.
func (a *API) onLeader(op huma.Operation) huma.Operation {
	a.places[op.Method+" "+op.Path] = atLeader
	return op
}

// redirect answers a request that this node, following, cannot answer itself. It is forwarded, since the client may not reach the leader, unless the client prefers a
// redirect and can follow it: one without a key for the leader, on this machine, cannot. It returns false if this node is to answer.
func (a *API) redirect(w http.ResponseWriter, r *http.Request, route string) bool {
	at := a.placeOf(r, route)
	if at == here {
		return false
	}
	address, self, err := a.findLeader(r.Context(), "")
	from := r.Header.Get(headerForwarded)
	switch {
	case err != nil:
		a.writeError(w, r, err)
	case from != "" && !self:
		a.writeError(w, r, api.NotLeader("leader %s forwarded this request here, but this node does not lead: send it again", shorten(from)))
	case self:
		return false
	case at == byRedirect || slices.Contains(r.Header["Prefer"], preferRedirect) && (!a.encrypted || access.PeerFrom(r.Context()).Encrypted):
		target := *r.URL
		target.Scheme, target.Host, target.Opaque, target.User = transport.Scheme, address, "", nil
		if a.encrypted {
			target.Scheme = transport.SchemeTLS
		}
		w.Header().Set("Location", target.String())
		w.WriteHeader(http.StatusTemporaryRedirect)
	default:
		return a.forward(w, r, route, address)
	}
	return true
}

// forward lets the leader at address answer, or the next one if no connection to that could be made. It returns false if this node is the next one.
func (a *API) forward(w http.ResponseWriter, r *http.Request, route, address string) bool {
	release, err := a.wait()
	if err != nil {
		a.writeError(w, r, err)
		return true
	}
	defer release()
	limit := int64(bodyBytesMax)
	if route == submitPattern || route == flowPattern {
		limit = submitBytesMax
	}
	body := newPacedReader(w, r, limit)
	defer body.done()
	r.Body = forwardedBody{body}
	if err = a.forwardTo(w, r, address); err == nil {
		return true
	}
	// The leader's process is gone, and has got nothing of the request.
	switch address, self, _ := a.findLeader(r.Context(), address); {
	case self:
		return false
	case address != "":
		err = a.forwardTo(w, r, address)
	}
	if err != nil {
		a.writeError(w, r, err)
	}
	return true
}

// forwardedBody is the body of a forwarded request. It stays open for the next leader.
type forwardedBody struct{ body *pacedReader }

func (b forwardedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &bodyError{err}
	}
	return n, err
}

func (forwardedBody) Close() error { return nil }

// bodyError is an error of the client's body, and not of the leader.
type bodyError struct{ error }

// findLeader returns the address of the node that leads, and whether it is this one. It waits while none is known but the one at gone.
func (a *API) findLeader(ctx context.Context, gone string) (address string, self bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, leaderMax)
	defer cancel()
	for {
		if address, self = a.leader.LeaderAddress(); address != "" && address != gone || self {
			return address, self, nil
		}
		err := a.leader.WaitLeader(waiting, gone)
		if ctx.Err() == nil && waiting.Err() != nil {
			err = api.NotLeader("no leader is known: an election takes about a second and needs a majority of the leaders; send it again")
		}
		if err != nil {
			return "", false, err
		}
	}
}

// errLeaderMoved ends forwarded requests.
var errLeaderMoved = errors.New("it no longer leads")

// forwardTo lets the node at address answer. Answers without a length, such as followed logs, are passed on at once. An error: nothing is answered, because no
// connection could be made.
func (a *API) forwardTo(w http.ResponseWriter, r *http.Request, address string) (unreached error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		a.watchLeader(ctx, address, cancel)
	}()
	defer func() {
		cancel(nil)
		<-watched
	}()
	clear(w.Header()) // the answer has its own
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.URL.RawQuery = transport.Scheme, address, p.In.URL.RawQuery
			p.Out.Host = address
			a.policy.Forward(r, p.Out.Header)
			p.Out.Header.Set(headerForwarded, strconv.FormatUint(a.leader.Cluster().Node, 10))
		},
		Transport:      a.forwarding.Transport,
		ModifyResponse: func(answer *http.Response) error { a.catchUp(ctx, answer); return nil },
		ErrorLog:       slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			protect(w.Header())
			a.stamp(w.Header())
			if body, ok := errors.AsType[*bodyError](err); ok {
				a.writeError(w, r, bodyProblem(body.error))
				return
			}
			if cause := context.Cause(ctx); errors.Is(cause, errLeaderMoved) {
				err = cause
			}
			problem := api.NotLeader("leader at %s not reachable: %v; send the request again", address, err)
			dial, ok := errors.AsType[*net.OpError](err)
			dialed := ok && dial.Op == "dial"
			if !isRead(r) && !dialed {
				problem = api.OutcomeUnknown("leader at %s not reachable: %v", address, err)
			}
			if dialed {
				unreached = problem
				return
			}
			a.writeError(w, r, problem)
		},
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
	return unreached
}

// catchUp returns when this node reflects a write that the leader has answered: a client that does not reach the leader reads here.
func (a *API) catchUp(ctx context.Context, answer *http.Response) {
	index, err := strconv.ParseUint(answer.Header.Get(headerIndex), 10, 64)
	if err != nil || isRead(answer.Request) || answer.StatusCode >= http.StatusMultipleChoices {
		return
	}
	waiting, cancel := context.WithTimeout(ctx, leaderMax)
	defer cancel()
	_ = a.leader.WaitIndex(waiting, index) // the write is done; a read here says how old it is
}

// watchLeader cancels once another node than that at address leads, or none for a while: if it hangs, it would hold the request for ever.
func (a *API) watchLeader(ctx context.Context, address string, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(forwardCheck)
	defer ticker.Stop()
	for left := leaderMax; left > 0; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch now, _ := a.leader.LeaderAddress(); now {
		case address:
			left = leaderMax
		case "":
			left -= forwardCheck
		default:
			left = 0
		}
	}
	cancel(errLeaderMoved)
}
