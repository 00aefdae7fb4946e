package httpapi

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/bridgefour/bridgefour/api"
)

type submit struct {
	Key string `header:"Idempotency-Key" doc:"A key used within 24 hours returns the job of that submission" maxLength:"200"`
}

const (
	submitPattern = "POST /v1/jobs"
	flowPattern   = "POST /v1/flows"
)

// addSubmit registers the submits. Huma does not read their bodies: it would hold them three times, and echo them if they are malformed.
func (a *API) addSubmit() {
	job := operation(http.MethodPost, "/v1/jobs", "submit-job", "jobs", "Submit a job")
	addSubmitOf[api.JobRequest, api.Job](a, &job, huma.Response{
		Description: "The job, committed",
		Headers:     map[string]*huma.Param{"Location": {Description: "Path of the job", Schema: &huma.Schema{Type: huma.TypeString}}},
	}, a.submit)
	content := a.huma.OpenAPI().Paths[job.Path].Post.RequestBody.Content
	content["multipart/form-data"] = &huma.MediaType{Schema: &huma.Schema{
		Type: huma.TypeObject, Required: []string{partJob, partLines},
		Description: "For millions of lines: the request without lines, then the lines, one per line",
		Properties: map[string]*huma.Schema{
			partJob: content["application/json"].Schema, partLines: {Type: huma.TypeString, Format: "binary"},
		},
	}}
	flow := operation(http.MethodPost, "/v1/flows", "submit-flow", "jobs", "Submit several jobs, all or none, which may come after each other")
	addSubmitOf[api.FlowRequest, api.Flow](a, &flow, huma.Response{Description: "The jobs, committed"}, a.submitFlow)
}

// addSubmitOf registers one sort of submit, which answers with a response.
func addSubmitOf[Request, Answer any](a *API, op *huma.Operation, response huma.Response, serve func(w http.ResponseWriter, r *http.Request, key string)) {
	registry := a.huma.OpenAPI().Components.Schemas
	response.Content = map[string]*huma.MediaType{"application/json": {Schema: registry.Schema(reflect.TypeFor[Answer](), true, "")}}
	op.DefaultStatus = http.StatusCreated
	op.Responses = map[string]*huma.Response{"201": &response}
	op.Errors = []int{http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable}
	huma.Register(a.huma, *op, func(_ context.Context, in *submit) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humago.Unwrap(hc)
			serve(w, r, in.Key)
		}}, nil
	})
	// Set after Register: huma reads the body of an operation that has one.
	a.huma.OpenAPI().Paths[op.Path].Post.RequestBody = &huma.RequestBody{
		Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: registry.Schema(reflect.TypeFor[Request](), true, "")}},
	}
}

func (a *API) submitFlow(w http.ResponseWriter, r *http.Request, key string) {
	body := newPacedReader(w, r, submitBytesMax)
	var req api.FlowRequest
	err := decodeJSON(&boundedReader{r: body, left: jobBytesMax}, true, &req)
	if err != nil { // a client that is still sending would miss the answer
		_, _ = io.CopyN(io.Discard, body, discardBytesMax)
	}
	body.done()
	if err != nil {
		a.writeError(w, r, err)
		return
	}
	ids, warnings, err := a.leader.SubmitFlow(r.Context(), &req, key)
	if err != nil {
		a.writeError(w, r, err)
		return
	}
	a.stamp(w.Header()) // first: the body must not be older
	flow := api.Flow{Jobs: make([]api.Job, len(ids))}
	for i, id := range ids {
		job, ok := a.leader.Job(r.Context(), id)
		if !ok { // forgotten already
			job = api.Job{ID: id, Status: api.JobStopped}
		}
		job.Warnings = warnings[i]
		flow.Jobs[i] = job
	}
	writeJSON(w, http.StatusCreated, "application/json", flow)
}

func (a *API) submit(w http.ResponseWriter, r *http.Request, key string) {
	id, warnings, err := a.leader.SubmitStream(r.Context(), key, func(line func([]byte) error) (*api.JobRequest, error) {
		body := newPacedReader(w, r, submitBytesMax)
		defer body.done()
		req, err := decodeSubmit(r, body, line)
		if err != nil { // a client that is still sending would miss the answer
			_, _ = io.CopyN(io.Discard, body, discardBytesMax)
		}
		return req, err
	})
	if err != nil {
		a.writeError(w, r, err)
		return
	}
	a.stamp(w.Header()) // first: the body must not be older
	job, ok := a.leader.Job(r.Context(), id)
	if !ok { // forgotten already
		a.writeError(w, r, api.NoJob(id))
		return
	}
	job.Warnings = warnings
	w.Header().Set("Location", jobURL(id))
	writeJSON(w, http.StatusCreated, "application/json", job)
}

// Parts of a multipart submission, in this order.
const (
	partJob   = "job"
	partLines = "lines"
)

// decodeSubmit decodes a submission while it is read: JSON, or JSON and the lines in a part of their own, without base64 and quoting. All but
// the lines is in memory.
func decodeSubmit(r *http.Request, body io.Reader, line func([]byte) error) (*api.JobRequest, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return decodeJob(body, line)
	}
	parts := multipart.NewReader(body, params["boundary"])
	part, err := parts.NextPart()
	switch {
	case err != nil:
		return nil, bodyProblem(err)
	case part.FormName() != partJob:
		return nil, api.Malformed("the first part of the body is %q; it must be %q", part.FormName(), partJob)
	}
	var req api.JobRequest
	if err := decodeJSON(&boundedReader{r: part, left: jobBytesMax}, true, &req); err != nil {
		return nil, err
	}
	part, err = parts.NextPart()
	switch {
	case err != nil:
		return nil, bodyProblem(err)
	case part.FormName() != partLines:
		return nil, api.Malformed("the second part of the body is %q; it must be %q", part.FormName(), partLines)
	case req.Lines == nil:
		req.Lines = &api.Lines{}
	case len(req.Lines.Items) > 0 || len(req.Lines.Raw) > 0:
		return nil, api.Invalid("validation failed").With("body.lines", "lines are in both the request and their own part", nil)
	}
	if _, err := eachLine(part, req.Lines.Null, line); err != nil {
		return nil, bodyProblem(err)
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		return nil, api.Malformed("parts after %q and %q in the body", partJob, partLines)
	}
	return &req, nil
}
