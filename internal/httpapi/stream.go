package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/bridgefour/bridgefour/api"
)

type getLogs struct {
	JobPath
	Task   string `query:"task" doc:"STAGE/INDEX or JOB/STAGE/INDEX: only this task" example:"map/7" maxLength:"200"`
	Follow bool   `query:"follow" doc:"Continue until the job has ended"`

	Failed bool      `query:"failed" doc:"Only of tasks that have failed; if followed, when they have"`
	Since  time.Time `query:"since" doc:"Only what was written since then" example:"2026-01-02T15:04:05Z"`
}

// addStreams registers the routes with unbounded answers. An error before the first byte is sent as a problem; a later one aborts the
// connection, so that half a result cannot be taken for a whole one.
func (a *API) addStreams() {
	result := operation(http.MethodGet, "/v1/jobs/{n}/result", "get-result", "jobs", "The result of an ended job, as the program wrote it")
	result.Responses = map[string]*huma.Response{"200": {
		Description: "The collected result, or the tasks' outputs in task order",
		Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		},
	}}
	result.Errors = []int{http.StatusNotFound, http.StatusConflict}
	huma.Register(a.huma, result, func(ctx context.Context, in *JobPath) (*huma.StreamResponse, error) {
		job, ok := a.leader.Job(ctx, in.ID)
		if !ok {
			return nil, a.asProblem(ctx, api.NoJob(in.ID))
		}
		if !job.IsEnded() {
			return nil, a.asProblem(ctx, api.Conflict("job %d is %s and has no result yet: GET %s?wait=30s waits for its end",
				job.ID, job.Status, jobURL(job.ID)))
		}
		return a.stream(ctx, func(w http.ResponseWriter, r *http.Request) { a.sendResult(w, r, in.ID) })
	})

	a.addParts()
	a.addJoblog()
	logs := a.onLeader(operation(http.MethodGet, "/v1/jobs/{n}/logs", "get-logs", "jobs", "The tasks' stderr, as JSON lines or as text"))
	record := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.LogText](), true, "")
	logs.Responses = map[string]*huma.Response{"200": {
		Description: "One LogText per line; for a request without an Accept header a LogRecord, whose text is in base64. As text/plain, the lines of the logs, " +
			"each with its time and its task. The answer is partial if it ends with records that have missing set: one for each worker " +
			"whose logs could not be read. A followed log has empty lines as signs of life",
		Content: map[string]*huma.MediaType{typeLines: {Schema: record}, typeText: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	logs.Errors = []int{http.StatusNotFound}
	huma.Register(a.huma, logs, func(ctx context.Context, in *getLogs) (*huma.StreamResponse, error) {
		q := api.LogQuery{Job: in.ID, Follow: in.Follow, Failed: in.Failed, Since: in.Since}
		if in.Task != "" {
			var err error
			if q.Stage, q.Index, err = parseTask(in.ID, in.Task); err != nil {
				return nil, a.asProblem(ctx, err)
			}
			q.OneTask = true
		}
		if _, ok := a.leader.Job(ctx, in.ID); !ok {
			return nil, a.asProblem(ctx, api.NoJob(in.ID))
		}
		return a.stream(ctx, func(w http.ResponseWriter, r *http.Request) { a.sendLogs(w, r, q) })
	})
}

// stream returns the unbounded answer that send writes, or a problem if there are too many.
func (a *API) stream(ctx context.Context, send func(http.ResponseWriter, *http.Request)) (*huma.StreamResponse, error) {
	release, err := a.wait()
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer release()
		r, w := humago.Unwrap(hc)
		send(w, r)
	}}, nil
}

func (a *API) sendResult(w http.ResponseWriter, r *http.Request, id uint64) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.Method == http.MethodHead {
		return
	}
	out := &answerWriter{w: w}
	a.endStream(w, r, out, a.leader.Result(r.Context(), id, out))
}

// endStream handles the end of a stream.
func (a *API) endStream(w http.ResponseWriter, r *http.Request, out *answerWriter, err error) {
	switch {
	case err == nil:
		if !out.begun {
			w.WriteHeader(http.StatusOK)
		}
	case !out.begun:
		a.writeError(w, r, err)
	default:
		if r.Context().Err() == nil && out.err == nil {
			a.log.ErrorContext(r.Context(), "stream aborted", "path", r.URL.Path, "error", err)
		}
		panic(http.ErrAbortHandler)
	}
}

// answerWriter records whether the answer has begun.
type answerWriter struct {
	w     http.ResponseWriter
	begun bool
	err   error // of a write: the client has disconnected
}

func (a *answerWriter) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	a.begun = true
	n, err := a.w.Write(b)
	a.err = err
	return n, err
}

func (a *API) sendLogs(w http.ResponseWriter, r *http.Request, q api.LogQuery) {
	out := newLogSink(w, r.Header["Accept"])
	w.Header().Set("Content-Type", typeLines)
	if out.form == logsPlain {
		w.Header().Set("Content-Type", typeText+"; charset=utf-8")
	}
	w.Header().Set("Vary", "Accept")
	if r.Method == http.MethodHead {
		return
	}
	logs := func(ctx context.Context, emit func(api.LogRecord) error) error { return a.leader.Logs(ctx, q, emit) }
	var err error
	if q.Follow {
		err = relay(r.Context(), logsFirst, logsBeat, out, logs)
	} else {
		err = logs(r.Context(), out.write)
	}
	if err == nil {
		err = out.buffered.Flush()
	}
	a.endStream(w, r, &out.answerWriter, err)
}

const (
	// logsFirst bounds the wait for a first record or an error before the header is sent.
	logsFirst = time.Second
	// logsBeat bounds the silence of a followed log, so that clients can tell a silent job from a node that hangs.
	logsBeat = 5 * time.Second
)
