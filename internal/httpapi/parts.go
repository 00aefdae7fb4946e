package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// PartsType is the content type of a stream of parts.
const PartsType = "application/vnd.bridgefour.parts"

type getParts struct {
	JobPath
	Unordered bool   `query:"unordered" doc:"As tasks finish, instead of in task order"`
	Inputs    bool   `query:"inputs" doc:"Say what each task reads"`
	Sums      bool   `query:"sums" doc:"Say the checksum of each output and, in the end, which outputs count of the tasks that have run more than once"`
	Task      uint64 `query:"task" doc:"To continue: the first task. If unordered, those before it are sent after it"`
	Offset    uint64 `query:"offset" doc:"To continue: the first byte of that task's output"`
}

func (a *API) addParts() {
	parts := operation(http.MethodGet, "/v1/jobs/{n}/parts", "get-parts", "jobs", "The tasks' outputs as they finish, until the job has ended")
	part := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.Part](), true, "")
	parts.Responses = map[string]*huma.Response{"200": {
		Description: "A sequence of pieces: a line that holds a Part as JSON, then as many bytes as it says. Those of a task are in order and together; " +
			"tasks that failed or wrote nothing have none. Empty lines between them are signs of life. The job is one without an output of its own, or done",
		Content: map[string]*huma.MediaType{PartsType: {Schema: part}},
	}}
	parts.Errors = []int{http.StatusNotFound, http.StatusConflict, http.StatusGone}
	huma.Register(a.huma, parts, func(ctx context.Context, in *getParts) (*huma.StreamResponse, error) {
		if _, ok := a.leader.Job(ctx, in.ID); !ok {
			return nil, a.asProblem(ctx, api.NoJob(in.ID))
		}
		q := api.PartQuery{Job: in.ID, Unordered: in.Unordered, Inputs: in.Inputs, Sums: in.Sums, Task: in.Task, Offset: in.Offset}
		return a.stream(ctx, func(w http.ResponseWriter, r *http.Request) { a.sendParts(w, r, q) })
	})
}

func (a *API) addJoblog() {
	joblog := operation(http.MethodGet, "/v1/jobs/{n}/joblog", "get-joblog", "jobs", "A table of the tasks that are done or dead")
	joblog.Responses = map[string]*huma.Response{"200": {
		Description: "A header line, then a line for each task: the columns of GNU parallel's job log, and what the task reads (Item), its worker, attempts, peak " +
			"memory in bytes, part and name. Exitval is -1 if an attempt did not end by itself. Columns are separated by tabs",
		Content: map[string]*huma.MediaType{"text/tab-separated-values": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	joblog.Errors = []int{http.StatusNotFound}
	huma.Register(a.huma, joblog, func(ctx context.Context, in *JobPath) (*huma.StreamResponse, error) {
		if _, ok := a.leader.Job(ctx, in.ID); !ok {
			return nil, a.asProblem(ctx, api.NoJob(in.ID))
		}
		return a.stream(ctx, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/tab-separated-values; charset=utf-8")
			if r.Method == http.MethodHead {
				return
			}
			out := &answerWriter{w: w}
			a.endStream(w, r, out, a.leader.Joblog(r.Context(), in.ID, out))
		})
	})
}

func (a *API) sendParts(w http.ResponseWriter, r *http.Request, q api.PartQuery) {
	w.Header().Set("Content-Type", PartsType)
	if r.Method == http.MethodHead {
		return
	}
	out := &partSink{answerWriter: answerWriter{w: w}, control: http.NewResponseController(w)}
	out.buffered = bufio.NewWriterSize(&out.answerWriter, 64<<10)
	err := relay(r.Context(), logsFirst, logsBeat, out, func(ctx context.Context, emit func(api.Part) error) error {
		return a.leader.StreamParts(ctx, q, emit)
	})
	if err == nil {
		err = out.buffered.Flush()
	}
	a.endStream(w, r, &out.answerWriter, err)
}

// partSink writes pieces of outputs.
type partSink struct {
	answerWriter

	control  *http.ResponseController
	buffered *bufio.Writer
}

func (s *partSink) write(part api.Part) error {
	line, err := json.Marshal(part)
	if err != nil {
		return err
	}
	_, _ = s.buffered.Write(append(line, '\n')) // the error is sticky
	_, err = s.buffered.Write(part.Text)
	return err
}

// beat sends an empty line.
func (s *partSink) beat() error {
	_ = s.buffered.WriteByte('\n') // the error is sticky: Flush returns it
	return s.flush()
}

func (s *partSink) flush() error {
	if err := s.buffered.Flush(); err != nil {
		return err
	}
	s.err = s.control.Flush()
	return s.err
}
