package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

const (
	// eventsFirst bounds the wait for a first event or an error before the header is sent.
	eventsFirst = 100 * time.Millisecond
	// eventsBeat bounds the silence of a stream: proxies close connections that are idle for a minute or less.
	eventsBeat = 10 * time.Second
	// eventsWriteMax bounds a write to a slow client, which can resume.
	eventsWriteMax = 30 * time.Second
	// eventsAgeMax is the age at which a partitioned node ends its streams, so that readers resume on another node.
	eventsAgeMax = 10 * time.Second
)

type listEvents struct {
	After       string `query:"after" doc:"INDEX-SEQ: the events after this one; without it and Last-Event-ID, those from now on" maxLength:"50"`
	LastEventID string `header:"Last-Event-ID" doc:"The same, as browsers send it to resume; overrides after" maxLength:"50"`
}

func (a *API) addEvents() {
	op := operation(http.MethodGet, "/v1/events", "list-events", "cluster",
		"Events of the log, as server-sent events; resumable on every leader by Last-Event-ID")
	event := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.Event](), true, "")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "id is INDEX-SEQ, event is the type, data is an Event",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: event}},
	}}
	op.Errors = []int{http.StatusGone}
	huma.Register(a.huma, op, func(ctx context.Context, in *listEvents) (*huma.StreamResponse, error) {
		after, now, err := a.eventsAfter(in)
		if err != nil {
			return nil, a.asProblem(ctx, err)
		}
		return a.stream(ctx, func(w http.ResponseWriter, r *http.Request) { a.sendEvents(w, r, after, now) })
	})
}

// eventsAfter returns the start of a stream, and whether that is now.
func (a *API) eventsAfter(in *listEvents) (after api.Position, now bool, err error) {
	location, id := "header.Last-Event-ID", in.LastEventID
	if id == "" {
		location, id = "query.after", in.After
	}
	if id == "" {
		return api.Position{Index: a.index(), Seq: math.MaxUint32}, true, nil
	}
	index, seq, _ := strings.Cut(id, "-")
	after.Index, err = strconv.ParseUint(index, 10, 64)
	number, seqErr := strconv.ParseUint(seq, 10, 32)
	if errors.Join(err, seqErr) != nil {
		return api.Position{}, false, api.Invalid("validation failed").With(location, "expected INDEX-SEQ, the id of an event", id)
	}
	after.Seq = uint32(number)
	return after, false, nil
}

func (a *API) sendEvents(w http.ResponseWriter, r *http.Request, after api.Position, now bool) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // or nginx buffers the events
	if r.Method == http.MethodHead {
		return
	}
	out := &eventSink{
		answerWriter: answerWriter{w: w}, control: http.NewResponseController(w),
		age: func() time.Duration {
			_, ms, _ := a.leader.Status()
			return time.Duration(ms) * time.Millisecond
		},
	}
	if now {
		// A client that loses the connection before the first event resumes here.
		fmt.Fprintf(&out.buffer, "id: %d-%d\n\n", after.Index, after.Seq)
	}
	err := relay(r.Context(), eventsFirst, eventsBeat, out, func(ctx context.Context, emit func(api.Event) error) error {
		return a.leader.Events(ctx, after, emit)
	})
	if errors.Is(err, errCutOff) {
		_ = out.control.SetWriteDeadline(time.Time{}) // the deadline belongs to the connection
		return                                        // end the answer in order: the client resumes, on another node if it can
	}
	a.endStream(w, r, &out.answerWriter, err)
}

var errCutOff = errors.New("this node is partitioned from the leader")

// eventSink writes server-sent events.
type eventSink struct {
	answerWriter
	control *http.ResponseController
	buffer  bytes.Buffer
	age     func() time.Duration
}

func (s *eventSink) write(e api.Event) error {
	fmt.Fprintf(&s.buffer, "id: %d-%d\nevent: %s\ndata: ", e.Index, e.Seq, e.Type)
	enc := json.NewEncoder(&s.buffer)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&e); err != nil { // one line with its newline
		return err
	}
	s.buffer.WriteByte('\n')
	if s.buffer.Len() < 32<<10 {
		return nil
	}
	return s.flush()
}

func (s *eventSink) beat() error {
	if s.begun && s.age() > eventsAgeMax {
		return errCutOff
	}
	s.buffer.WriteString(":\n\n")
	return s.flush()
}

func (s *eventSink) flush() error {
	// Not every ResponseWriter supports deadlines.
	_ = s.control.SetWriteDeadline(time.Now().Add(eventsWriteMax))
	if _, err := s.Write(s.buffer.Bytes()); err != nil {
		return err
	}
	s.buffer.Reset()
	s.err = s.control.Flush()
	return s.err
}
