package httpapi

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/transform"

	"github.com/bridgefour/bridgefour/api"
)

// jobDecoder decodes a job request while it is read, and passes on its lines one by one.
type jobDecoder struct {
	json    *json.Decoder
	bounded *boundedReader
	text    io.Reader // bounded, as valid UTF-8
	line    func([]byte) error
	rest    bytes.Buffer // the request without its lines, as JSON
	count   [2]int       // of the lines by items and raw
	lines   *api.Lines   // how they are separated and what they are; nil: the request has none
}

// decodeJob decodes one job request.
func decodeJob(body io.Reader, line func([]byte) error) (*api.JobRequest, error) {
	d := &jobDecoder{bounded: &boundedReader{r: body, left: jobBytesMax}, line: line}
	// encoding/json would replace invalid UTF-8 by U+FFFD, and the job would read other inputs than it names.
	d.text = transform.NewReader(d.bounded, encoding.UTF8Validator)
	d.json = json.NewDecoder(d.text)
	if _, err := d.object(reflect.TypeFor[api.JobRequest](), "", d.field); err != nil {
		return nil, bodyProblem(err)
	}
	if _, err := d.json.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			return nil, api.Malformed("data after the JSON value of the body")
		}
		return nil, bodyProblem(err)
	}
	var req api.JobRequest
	if err := decodeJSON(strings.NewReader("{"+strings.TrimPrefix(d.rest.String(), ",")+"}"), true, &req); err != nil {
		return nil, err
	}
	if d.lines != nil {
		if req.Lines != nil {
			return nil, api.Malformed("the body has the lines twice")
		}
		req.Lines = d.lines
	}
	return &req, nil
}

// object reads an object, or null, and calls field with each key, to read its value. It reports whether it was an object.
func (d *jobDecoder) object(t reflect.Type, name string, field func(key string) error) (bool, error) {
	token, err := d.json.Token()
	switch {
	case err != nil || token == nil:
		return false, err
	case token != json.Delim('{'):
		return false, wrongType(token, t, name)
	}
	for d.json.More() {
		key, err := d.json.Token()
		if err == nil {
			err = field(key.(string)) //nolint:forcetypeassert // the decoder has checked it
		}
		if err != nil {
			return true, unexpectedEnd(err)
		}
	}
	_, err = d.json.Token() // the closing brace
	return true, unexpectedEnd(err)
}

// field reads a field of the request.
func (d *jobDecoder) field(key string) (err error) {
	if key == "lines" {
		if d.lines != nil {
			return api.Malformed("the body has the lines twice")
		}
		d.lines = &api.Lines{}
		there, err := d.object(reflect.TypeFor[api.Lines](), "lines", d.linesField)
		if !there {
			d.lines = nil
		}
		return err
	}
	var value json.RawMessage
	if err := d.json.Decode(&value); err != nil {
		return err
	}
	name, err := json.Marshal(key)
	if err != nil {
		return err
	}
	d.rest.WriteByte(',')
	d.rest.Write(name)
	d.rest.WriteByte(':')
	d.rest.Write(value)
	return nil
}

// linesField reads a field of the lines.
func (d *jobDecoder) linesField(key string) (err error) {
	left := d.bounded.left
	switch key {
	case "items":
		d.count[0], err = d.items()
	case "raw":
		d.count[1], err = d.raw()
	case "null":
		if err = d.json.Decode(&d.lines.Null); err == nil && d.lines.Null && d.count[1] > 0 {
			err = api.Invalid("invalid job").With("body.lines.null", "must come before raw", nil)
		}
		return err
	case "columns":
		return d.json.Decode(&d.lines.Columns)
	default:
		return api.Invalid("validation failed").With("body.lines."+key, "unexpected property", nil)
	}
	d.bounded.left = left
	if err == nil && d.count[0] > 0 && d.count[1] > 0 {
		return api.Invalid("invalid job").With("body.lines", "give items or raw, not both", nil)
	}
	return err
}

// items reads an array of lines.
func (d *jobDecoder) items() (n int, err error) {
	token, err := d.json.Token()
	switch {
	case err != nil || token == nil:
		return 0, err
	case token != json.Delim('['):
		return 0, wrongType(token, reflect.TypeFor[[]string](), "lines.items")
	}
	for d.json.More() {
		d.bounded.left = itemBytesMax
		token, err := d.json.Token()
		if err != nil {
			return n, err
		}
		text, ok := token.(string)
		if !ok {
			return n, wrongType(token, reflect.TypeFor[string](), "lines.items")
		}
		if err := d.line([]byte(text)); err != nil {
			return n, err
		}
		n++
	}
	_, err = d.json.Token() // the closing bracket
	return n, err
}

// raw reads the lines of a base64 string. The decoder of encoding/json would hold it as a whole, so what follows the key is read here, and
// another decoder goes on behind it.
func (d *jobDecoder) raw() (n int, err error) {
	d.bounded.left = submitBytesMax
	in := bufio.NewReader(io.MultiReader(d.json.Buffered(), d.text))
	text := &stringReader{in: in}
	first, err := text.open()
	if err != nil {
		return 0, err
	}
	placeholder := "" // of what was read here
	if first == '"' {
		placeholder = "null"
		n, err = eachLine(base64.NewDecoder(base64.StdEncoding, text), d.lines.Null, d.line)
		if text.ended && errors.Is(err, io.ErrUnexpectedEOF) {
			err = base64.CorruptInputError(text.bytes)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, text)
		}
	} else {
		err = in.UnreadByte()
	}
	if err != nil {
		return n, err
	}
	d.json = json.NewDecoder(io.MultiReader(strings.NewReader(`{"":{"":`+placeholder), in))
	var token json.Token
	for range 5 {
		if token, err = d.json.Token(); err != nil {
			return n, err
		}
	}
	if token != nil {
		return 0, wrongType(token, reflect.TypeFor[[]byte](), "lines.raw")
	}
	return n, nil
}

// stringReader reads a JSON string of base64, after its opening quote. After the closing one it returns io.EOF.
type stringReader struct {
	in    *bufio.Reader
	bytes int // that were read
	ended bool
}

// open reads up to the first byte of a value.
func (s *stringReader) open() (byte, error) {
	for colon := false; ; {
		c, err := s.in.ReadByte()
		switch {
		case err != nil:
			return 0, unexpectedEnd(err)
		case strings.IndexByte(" \t\r\n", c) >= 0:
		case c == ':' && !colon:
			colon = true
		case !colon:
			return 0, fmt.Errorf("invalid character %q after object key", c)
		default:
			return c, nil
		}
	}
}

func (s *stringReader) Read(b []byte) (n int, err error) {
	for n < len(b) && !s.ended {
		if n > 0 && s.in.Buffered() == 0 {
			return n, nil // what is there is not delayed
		}
		c, err := s.in.ReadByte()
		if err == nil && c == '\\' {
			switch c, err = s.in.ReadByte(); c {
			case '/':
			case 'n', 'r':
				c = '\n' // which base64 skips
			default:
				return n, base64.CorruptInputError(s.bytes) // no other escape is of use
			}
		}
		switch {
		case err != nil:
			return n, unexpectedEnd(err)
		case c == '"':
			s.ended = true
		default:
			b[n] = c
			n++
			s.bytes++
		}
	}
	if n == 0 && s.ended {
		return 0, io.EOF
	}
	return n, nil
}

func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func wrongType(token json.Token, want reflect.Type, field string) error {
	found := "number"
	switch token.(type) {
	case nil:
		found = "null"
	case json.Delim:
		found = "array"
		if token == json.Delim('{') {
			found = "object"
		}
	case string:
		found = "string"
	case bool:
		found = "bool"
	}
	return &json.UnmarshalTypeError{Value: found, Type: want, Field: field}
}

// eachLine calls line with each line, without its newline, or its zero byte, which the last one may lack. A line is cut at itemBytesMax: it is
// too long whatever follows.
func eachLine(r io.Reader, null bool, line func([]byte) error) (n int, err error) {
	end := byte('\n')
	if null {
		end = 0
	}
	in := bufio.NewReaderSize(r, bodyPiece)
	var long []byte // the beginning of a line that is longer than the buffer
	for err == nil {
		var part []byte
		part, err = in.ReadSlice(end)
		full := errors.Is(err, bufio.ErrBufferFull)
		if full || len(long) > 0 {
			long = append(long, part[:min(len(part), itemBytesMax-len(long))]...)
			part = long
		}
		switch {
		case full:
			err = nil
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return n, err
		case len(part) > 0: // a line, or the last one without its newline
			n++
			if err := line(bytes.TrimSuffix(part, []byte{end})); err != nil {
				return n, err
			}
		}
		long = long[:0]
	}
	return n, nil
}

// boundedReader returns an error of http.MaxBytesReader once more than left bytes were read.
type boundedReader struct {
	r    io.Reader
	left int
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, &http.MaxBytesError{Limit: jobBytesMax}
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
