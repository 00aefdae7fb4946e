package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"

	"golang.org/x/text/encoding"
	"golang.org/x/text/transform"

	"github.com/bridgefour/bridgefour/api"
)

// Limits of bodies.
const (
	submitBytesMax = 1 << 30 // with the lines, which are not in memory
	jobBytesMax    = 4 << 20 // of a submission without its lines
	itemBytesMax   = 8 << 20 // of the JSON of a line; the plan's limit is lower
	bodyBytesMax   = 1 << 20
	// discardBytesMax bounds what is read of the rest of a refused submission.
	discardBytesMax = 256 << 20

	// Each piece of a body must arrive within this time: a client that trickles bytes must not hold memory for hours, and a large
	// job may still arrive over a slow line.
	bodyPiece     = 64 << 10
	bodyPieceTime = 30 * time.Second
)

// decodeBody decodes a JSON body of at most limit bytes into v. Strict rejects unknown fields. The body is decoded while it is read, so
// that a large one is in memory once.
func decodeBody(w http.ResponseWriter, r *http.Request, limit int64, strict bool, v any) error {
	body := newPacedReader(w, r, limit)
	defer body.done()
	return decodeJSON(body, strict, v)
}

// decodeJSON decodes one JSON value into v.
func decodeJSON(body io.Reader, strict bool, v any) error {
	// encoding/json would replace invalid UTF-8 by U+FFFD, and the job would read other inputs than it names.
	dec := json.NewDecoder(transform.NewReader(body, encoding.UTF8Validator))
	if strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(v); err != nil {
		return bodyProblem(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			return api.Malformed("data after the JSON value of the body")
		}
		return bodyProblem(err)
	}
	return nil
}

// bodyProblem returns the problem for an error of reading or decoding a body.
func bodyProblem(err error) error {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return api.NewProblem(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return api.NewProblem(http.StatusRequestTimeout, "body too slow: %d KiB took longer than %v", bodyPiece>>10, bodyPieceTime)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		location := "body"
		if wrong.Field != "" {
			location += "." + wrong.Field
		}
		return api.Invalid("validation failed").With(location, fmt.Sprintf("expected %s, found %s", kindName(wrong.Type), wrong.Value), nil)
	}
	// encoding/json exports no type for this error.
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return api.Invalid("validation failed").With("body."+strings.Trim(field, `"`), "unexpected property", nil)
	}
	if corrupt, ok := errors.AsType[base64.CorruptInputError](err); ok {
		return api.Invalid("validation failed").With("body.lines.raw", corrupt.Error(), nil)
	}
	switch {
	case errors.Is(err, io.EOF):
		return api.Malformed("the body is empty: want JSON")
	case errors.Is(err, encoding.ErrInvalidUTF8):
		return api.Malformed("the body is not valid UTF-8: send other bytes as base64 in lines.raw, or name the folder of such files")
	}
	return api.Malformed("the body is not JSON: %v", err)
}

// kindName is the JSON name of a Go type.
func kindName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() { //nolint:exhaustive // no other kinds are in request types
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "base64 string"
		}
		return "array"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "whole number of 64 bits"
	default:
		return t.Kind().String()
	}
}

// pacedReader gives each piece of a body its own deadline.
type pacedReader struct {
	r       io.Reader
	control *http.ResponseController
	left    int // bytes until the next deadline is set
}

func newPacedReader(w http.ResponseWriter, r *http.Request, limit int64) *pacedReader {
	return &pacedReader{r: http.MaxBytesReader(w, r.Body, limit), control: http.NewResponseController(w)}
}

func (p *pacedReader) Read(b []byte) (int, error) {
	if p.left <= 0 {
		p.left = bodyPiece
		p.deadline(time.Now().Add(bodyPieceTime))
	}
	n, err := p.r.Read(b)
	p.left -= n
	return n, err
}

// done removes the deadline, which would end the request while it waits for the log.
func (p *pacedReader) done() { p.deadline(time.Time{}) }

func (p *pacedReader) deadline(t time.Time) {
	// Not every ResponseWriter supports deadlines; the server's own limits remain.
	_ = p.control.SetReadDeadline(t)
}
