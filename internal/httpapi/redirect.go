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
	// forwardSilence bounds the wait for the header of a forwarded request's answer, which comes from memory.
	forwardSilence = 30 * time.Second
	// forwardCheck is the interval at which a forwarded request checks that its node still leads.
	forwardCheck = 500 * time.Millisecond
)

// headerForwarded marks a forwarded request, with the follower's number. It is not forwarded again: two nodes that each believe the
// other leads would loop.
const headerForwarded = "X-Bridgefour-Forwarded"

// preferRedirect is the value of the header Prefer of clients that follow a redirect rather than have a write forwarded.
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

// onLeader marks a read that only the leader can answer: a follower forwards it.
func (a *API) onLeader(op huma.Operation) huma.Operation {
	a.forwarded[op.Method+" "+op.Path] = true
	return op
}

// redirect answers a request that this node, following, cannot answer itself: writes are redirected to the leader, so that a large
// body is sent once, and reads of what only the leader knows are forwarded; so are writes of local clients without a key for the leader, and those of the original's
// routes, whose clients may not reach the leader, unless they prefer a redirect. It returns false if this node is to answer.
func (a *API) redirect(w http.ResponseWriter, r *http.Request, route string) bool {
	write := !isRead(r) && route != unknownPattern
	forwarded := a.forwarded[route]
	if !write && !forwarded {
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
	case write && (!forwarded || slices.Contains(r.Header["Prefer"], preferRedirect)) && (!a.encrypted || access.PeerFrom(r.Context()).Encrypted):
		target := *r.URL
		target.Scheme, target.Host, target.Opaque, target.User = transport.Scheme, address, "", nil
		if a.encrypted {
			target.Scheme = transport.SchemeTLS
		}
		w.Header().Set("Location", target.String())
		w.WriteHeader(http.StatusTemporaryRedirect)
	case write && forwarded && r.ContentLength > bodyBytesMax:
		a.writeError(w, r, bodyProblem(&http.MaxBytesError{Limit: bodyBytesMax}))
	default:
		if write && forwarded {
			body := newPacedReader(w, r, bodyBytesMax)
			defer body.done()
			r.Body = io.NopCloser(body) // for the next leader
		}
		err := a.forward(w, r, address)
		if err == nil {
			return true
		}
		// The leader's process is gone, and has got nothing of the request.
		switch address, self, _ = a.findLeader(r.Context(), address); {
		case self:
			return false
		case address != "":
			err = a.forward(w, r, address)
		}
		if err != nil {
			a.writeError(w, r, err)
		}
	}
	return true
}

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
var errLeaderMoved = errors.New("another node leads now")

// forward lets the node at address answer. Answers without a length, such as followed logs, are passed on at once. An error: nothing is answered, because no
// connection could be made.
func (a *API) forward(w http.ResponseWriter, r *http.Request, address string) (unreached error) {
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
		Transport: a.forwarding.Transport,
		ErrorLog:  slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if cause := context.Cause(ctx); errors.Is(cause, errLeaderMoved) {
				err = cause
			}
			protect(w.Header())
			a.stamp(w.Header())
			if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
				a.writeError(w, r, bodyProblem(err))
				return
			}
			problem := api.NotLeader("leader at %s not reachable: %v; send the request again", address, err)
			if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
				unreached = problem
				return
			}
			a.writeError(w, r, problem)
		},
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
	return unreached
}

// watchLeader cancels once the node at address no longer leads: if it hangs, it would hold the request for ever.
func (a *API) watchLeader(ctx context.Context, address string, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(forwardCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now, _ := a.leader.LeaderAddress(); now != "" && now != address {
			cancel(errLeaderMoved)
			return
		}
	}
}
