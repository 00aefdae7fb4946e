package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

// Content types of logs.
const (
	typeLines = "application/jsonl"
	typeText  = "text/plain"
)

// logForm is how logs are sent.
type logForm int

const (
	logsEncoded  logForm = iota // records, for clients that ask for nothing, as those before there were forms
	logsReadable                // records with their text as it is
	logsPlain                   // lines
)

// acceptedLogs is the form that a request accepts first.
func acceptedLogs(accept []string) logForm {
	if len(accept) == 0 {
		return logsEncoded
	}
	for kind := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, _, _ = strings.Cut(kind, ";")
		switch strings.TrimSpace(kind) {
		case typeText, "text/*":
			return logsPlain
		case typeLines, "*/*":
			return logsReadable
		}
	}
	return logsReadable
}

// logSink writes records.
type logSink struct {
	answerWriter

	form     logForm
	control  *http.ResponseController
	buffered *bufio.Writer
	enc      *json.Encoder
}

func newLogSink(w http.ResponseWriter, accept []string) *logSink {
	s := &logSink{answerWriter: answerWriter{w: w}, form: acceptedLogs(accept), control: http.NewResponseController(w)}
	s.buffered = bufio.NewWriterSize(&s.answerWriter, 32<<10)
	s.enc = json.NewEncoder(s.buffered)
	s.enc.SetEscapeHTML(false)
	return s
}

func (s *logSink) write(record api.LogRecord) error {
	switch s.form {
	case logsPlain:
		return s.writeLines(&record)
	case logsReadable:
		return s.enc.Encode(record.Readable())
	case logsEncoded:
	}
	return s.enc.Encode(record)
}

// writeLines writes the lines of a record, each with its time and its task.
func (s *logSink) writeLines(r *api.LogRecord) error {
	prefix := ""
	if r.Time != nil {
		prefix = r.Time.UTC().Format("2006-01-02T15:04:05.000Z") + " "
	}
	if r.Missing != "" {
		_, err := fmt.Fprintf(s.buffered, "%slogs missing: %s\n", prefix, r.Missing)
		return err
	}
	prefix += r.Label() + ": "
	var err error
	for line := range bytes.Lines(r.Text) {
		_, err = fmt.Fprintf(s.buffered, "%s%s\n", prefix, bytes.TrimSuffix(line, []byte("\n")))
	}
	return err // sticky
}

// beat sends an empty line, which is white space between JSON values.
func (s *logSink) beat() error {
	if s.form != logsPlain {
		_ = s.buffered.WriteByte('\n') // the error is sticky: Flush returns it
	}
	return s.flush()
}

func (s *logSink) flush() error {
	if err := s.buffered.Flush(); err != nil {
		return err
	}
	s.err = s.control.Flush()
	return s.err
}
