package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// Options configure an API.
type Options struct {
	Leader    Leader
	Policy    *access.Policy
	Certifier Certifier
	Routes    []Route      // in addition to those of this package
	Metrics   http.Handler // serves GET /metrics; nil: no such route
	Version   string       // of the binary, for the OpenAPI document
	Log       *slog.Logger // required
	// Dial connects to another node, for requests that are forwarded; nil: by TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Encrypted: other machines reach the nodes by TLS only.
	Encrypted bool
}

// API serves the routes of a leader.
type API struct {
	leader Leader
	policy *access.Policy
	log    *slog.Logger
	mux    *http.ServeMux
	huma   huma.API

	waiting    chan struct{}    // one entry per request that waits for something to happen, streams, or is forwarded
	lockWaits  chan struct{}    // one entry per request that may wait for a lock
	places     map[string]place // of routes, by pattern, that do not follow the rule
	forwarding *http.Client
	encrypted  bool
	certifier  Certifier
}

// New builds the API of a leader, in about 2 ms: the OpenAPI document is encoded on first use.
func New(o Options) *API {
	mux := http.NewServeMux()
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Bridge Four", Version: o.Version,
				Description: "One computation over many inputs, each output exactly once.",
			},
		},
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{shortenValues},
	}
	config.RejectUnknownQueryParameters = true
	a := &API{
		leader: o.Leader, policy: o.Policy, log: o.Log, mux: mux, huma: humago.New(mux, config),
		waiting: make(chan struct{}, waitingMax()), lockWaits: make(chan struct{}, lockWaitsMax),
		places: map[string]place{}, forwarding: newForwarding(o.Dial), encrypted: o.Encrypted, certifier: o.Certifier,
	}
	a.addJobs()
	a.addTasks()
	a.addStreams()
	a.addEvents()
	a.addCluster()
	a.addLeaders()
	a.addAccess()
	a.addQuotas()
	a.addRetention()
	a.addLocks()
	for _, r := range o.Routes {
		a.add(r)
	}
	a.addService(o.Metrics)
	a.describeFreshness()
	return a
}

// waitingMax bounds the requests that wait or stream: the other half of the connections is for requests that are answered at once.
func waitingMax() int { return transport.NewConnLimits().HTTP / 2 }

// wait counts a request that waits or streams until release is called. The newest above the limit are refused.
func (a *API) wait() (release func(), err error) {
	select {
	case a.waiting <- struct{}{}:
		return func() { <-a.waiting }, nil
	default:
		return nil, api.Unavailable("this node serves %d long polls, streams and requests for the leader, which is its limit: retry later, or use another leader", cap(a.waiting))
	}
}

// Close closes idle connections to other leaders.
func (a *API) Close() { a.forwarding.CloseIdleConnections() }

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer a.recovered(w, r)
	protect(w.Header())
	_, route := a.mux.Handler(r)
	r, err := a.policy.Accept(r, route)
	if err != nil {
		a.leader.Refused(r.Context(), err) //nolint:contextcheck // it is the request's
		a.writeError(w, r, err)
		return
	}
	a.stamp(w.Header())
	if _, self := a.leader.LeaderAddress(); !self && a.redirect(w, r, route) {
		return
	}
	if r.URL.RawQuery != "" && isRead(r) {
		if r, err = a.refresh(w, r); err != nil {
			a.writeError(w, r, err)
			return
		}
	}
	a.mux.ServeHTTP(w, r)
}

// The headers of freshness, in canonical form.
const (
	headerIndex  = "X-Bridgefour-Index"
	headerAge    = "X-Bridgefour-Age"
	headerLeader = "X-Bridgefour-Leader"
)

// stamp sets the headers of freshness. Call it before the state is read: the index must not be newer than the answer.
func (a *API) stamp(h http.Header) {
	index, age, leader := a.leader.Status()
	values := make([]string, 3)
	values[0] = strconv.FormatUint(index, 10)
	values[1] = strconv.FormatInt(age, 10)
	values[2] = strconv.FormatUint(leader, 10)
	h[headerIndex] = values[0:1:1]
	h[headerAge] = values[1:2:2]
	h[headerLeader] = values[2:3:3]
}

// index is the log position to send with state that is read later.
func (a *API) index() uint64 {
	index, _, _ := a.leader.Status()
	return index
}

// recovered turns a panic of a handler into a 500 problem.
func (a *API) recovered(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler) // net/http's way to abort a connection
	}
	if err, ok := v.(error); ok && isNetError(err) {
		panic(http.ErrAbortHandler) // huma panics if the client disconnects during the answer
	}
	a.log.ErrorContext(r.Context(), "request panicked", "method", r.Method, "path", r.URL.Path, "panic", v,
		"stack", string(debug.Stack()))
	a.writeError(w, r, api.NewProblem(http.StatusInternalServerError,
		"internal error: the leader's log has the details"))
}

func isNetError(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// addService adds probes, metrics, documentation, and the answer to unknown routes.
func (a *API) addService(metrics http.Handler) {
	a.add(Route{
		Method: http.MethodGet, Path: "/healthz", Tag: "service", Summary: "200 while the process runs",
		Handle: func(*http.Request, func(any) error) (any, error) {
			return health{Status: "ok"}, nil
		},
	})
	a.add(Route{
		Method: http.MethodGet, Path: "/readyz", Tag: "service",
		Summary: "200 if this node leads and accepts writes, or follows and hears from the leader; else 503 with the reason",
		Handle: func(*http.Request, func(any) error) (any, error) {
			if why := a.leader.NotReady(); why != "" {
				return nil, api.Unavailable("%s", why)
			}
			return health{Status: "ready", Insecure: a.policy.Insecure()}, nil
		},
	})
	if metrics != nil {
		a.describe(Route{Method: http.MethodGet, Path: "/metrics", Tag: "service", Summary: "Prometheus metrics"})
		a.mux.Handle("GET /metrics", metrics)
	}
	a.addDocs()
	a.mux.HandleFunc(unknownPattern, a.unknown)
}

// health is the answer to probes.
type health struct {
	Status   string `json:"status"`
	Insecure string `json:"insecure,omitempty"`
}

// unknown answers requests without a route: 405 if the path has other methods, else 404.
func (a *API) unknown(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := a.mux.Handler(probe); strings.HasPrefix(pattern, method+" ") {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 || slices.Contains(allowed, r.Method) {
		a.writeError(w, r, api.NotFound("no route %s %s: GET /docs lists them", r.Method, r.URL.Path))
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	a.writeError(w, r, api.NewProblem(http.StatusMethodNotAllowed, "%s does not allow %s, only %s",
		r.URL.Path, r.Method, strings.Join(allowed, ", ")))
}
