package httpapi

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// decodeWhole decodes a submission as encoding/json does, and cuts it into lines.
func decodeWhole(body string) (req api.JobRequest, lines []string, err error) {
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return req, nil, err
	}
	if l := req.Lines; l != nil {
		lines = l.Items
		if len(l.Raw) > 0 {
			end := "\n"
			if l.Null {
				end = "\x00"
			}
			lines = append(lines, strings.Split(strings.TrimSuffix(string(l.Raw), end), end)...)
		}
		req.Lines = &api.Lines{Null: l.Null, Columns: l.Columns}
	}
	return req, lines, nil
}

func decodeStream(body io.Reader) (*api.JobRequest, []string, error) {
	var lines []string
	req, err := decodeJob(body, func(line []byte) error {
		lines = append(lines, string(line))
		return nil
	})
	return req, lines, err
}

// FuzzDecodeJob compares the decoding of a stream with that of encoding/json.
func FuzzDecodeJob(f *testing.F) {
	for _, body := range []string{
		`{"program":{"builtin":"x"},"lines":{"items":["a","b\nc","","\u00e9"]},"retries":3}`,
		`{"lines":{"raw":"YQpiCg=="},"name":"last"}`, `{"lines" : { "raw" : "YQpi\/w==" } , "name":"n"}`, `{"lines":{"raw":"YQpi\nCg=="}}`,
		`{"lines":{}}`, `{"lines":null,"dir":"/x"}`, `{"lines":{"raw":null,"items":null}}`, `{"lines":{"raw":"","items":["a"]}}`,
		`{"lines":{"null":true,"raw":"YQpiAGMA"},"each":[{"name":"x","values":["a"]}]}`, `{"lines":{"raw":"YQpiAGMA","null":false}}`,
		`{"lines":{"columns":["a",""],"items":["1","2"]},"shuffle":true,"limit":3,"batch":2}`, `{"lines":{"raw":"YQ==","null":true}}`, `{"lines":{"columns":[1]}}`,
		`{"lines":{"raw":"Cg==","items":[]}}`, `{"set":{"a":"b"},"inputs":["/x"]}`, `{"Lines":{"items":["a"]}}`, ` {"lines":{"items":["a"]}} `,
		`{"lines":{"raw":7}}`, `{"lines":{"raw":["a"]}}`, `{"lines":{"items":"a"}}`, `{"lines":{"items":[1]}}`, `{"lines":[]}`, `{"lines":{"raw":"YQ"}}`,
		`{"lines":{"raw":"Y","x":1}}`, `{"lines":{"raw":"YQ=="`, `{"lines":{"items":["a"`, `{"lines":{"items":["a"]}} x`, `null`, `7`, `{"raw":1}`, `{"x":{"raw":"YQ=="}}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, lines, err := decodeStream(iotest.OneByteReader(strings.NewReader(body)))
		if again, linesAgain, errAgain := decodeStream(strings.NewReader(body)); (err == nil) != (errAgain == nil) || err == nil && (!reflect.DeepEqual(got, again) || !reflect.DeepEqual(lines, linesAgain)) {
			t.Fatalf("%q gives %+v %q %v, and byte by byte %+v %q %v", body, again, linesAgain, errAgain, got, lines, err)
		}
		if err != nil {
			return // what is refused: TestBadRequests
		}
		if got.Lines != nil && len(got.Lines.Items)+len(got.Lines.Raw) > 0 {
			return // by another spelling of "lines", in memory
		}
		want, wantLines, err := decodeWhole(body)
		if err != nil {
			t.Fatalf("%q is accepted: %v", body, err)
		}
		if !reflect.DeepEqual(*got, want) || strings.Join(lines, "\x00") != strings.Join(wantLines, "\x00") || len(lines) != len(wantLines) {
			t.Fatalf("%q gives %+v %q, want %+v %q", body, *got, lines, want, wantLines)
		}
	})
}

// pendingReader counts what was read since the last line was passed on.
type pendingReader struct {
	r             io.Reader
	pending, most int
}

func (p *pendingReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.pending += n
	p.most = max(p.most, p.pending)
	return n, err
}

// TestLinesAreStreamed: lines are passed on while the body is read, however they are written.
func TestLinesAreStreamed(t *testing.T) {
	const lines = 1 << 18
	text := strings.Repeat("a line of thirty-two characters\n", lines)
	for name, body := range map[string]string{
		"items": `{"lines":{"items":[` + strings.Repeat(`"a line of thirty-two characters",`, lines-1) + `"last"]},"name":"n"}`,
		"raw":   `{"lines":{"raw":"` + base64.StdEncoding.EncodeToString([]byte(text)) + `"},"name":"n"}`,
	} {
		count, r := 0, &pendingReader{r: strings.NewReader(body)}
		req, err := decodeJob(r, func([]byte) error {
			count++
			r.pending = 0
			return nil
		})
		if err != nil || req.Name != "n" || count != lines {
			t.Fatalf("%s: %d lines of %+v, %v; want %d", name, count, req, err, lines)
		}
		if r.most > 256<<10 {
			t.Errorf("%s: %d bytes were read without a line", name, r.most)
		}
	}
}

// TestBodyIsBounded: all but the lines of a submission is in memory.
func TestBodyIsBounded(t *testing.T) {
	long := strings.Repeat("x", jobBytesMax)
	for _, body := range []string{
		`{"name":"` + long + `"}`, `{"inputs":["` + long + `"]}`, `{"lines":{"items":["a"],"x":"` + long + `"}}`, `{"lines":{"items":["` + long + long + long + `"]}}`,
	} {
		_, _, err := decodeStream(strings.NewReader(body))
		if !api.IsStatus(err, http.StatusRequestEntityTooLarge) && !api.IsStatus(err, http.StatusUnprocessableEntity) {
			t.Errorf("%.40s: %v, want 413 or 422", body, err)
		}
	}
}

// TestRefusedBodyIsRead: a client that reads no answer before it has sent everything gets the reason, not a connection that is reset.
func TestRefusedBodyIsRead(t *testing.T) {
	server := httptest.NewServer(newAPI(httpapitest.NewFake()))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String()) //nolint:noctx // it listens
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // only read
	body := `{"name":"` + strings.Repeat("x", 10*jobBytesMax) + `"}`
	if _, err := fmt.Fprintf(conn, "POST /v1/jobs HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", server.Listener.Addr(), len(body), body); err != nil {
		t.Fatalf("the body is not read: %v", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	if answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", answer.StatusCode)
	}
}
