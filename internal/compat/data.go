package compat

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

// dataBytesMax bounds a result, which is in memory to be sent as JSON.
const dataBytesMax = 64 << 20

var errDataTooLarge = errors.New("result too large")

// data answers with the collected result of a done job, else with the status.
func (s system) data(r *http.Request, _ func(any) error) (any, error) {
	job, ok, err := s.jobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	if job.Status != api.JobDone {
		return executionStatus(&job), nil
	}
	if job.Program.Builtin == "Sample" {
		return job.ID, nil
	}
	var result boundedBuffer
	if err := s.node.Result(r.Context(), job.ID, &result); err != nil {
		if errors.Is(err, errDataTooLarge) {
			return nil, api.NewProblem(http.StatusUnprocessableEntity,
				"the result of job %d is larger than %d bytes, the limit of this route: GET /v1/jobs/%d/result streams it",
				job.ID, dataBytesMax, job.ID)
		}
		return nil, err
	}
	return resultJSON(result.String()), nil
}

// resultJSON is an object of counts if every line is "word,count" or "key<TAB>count", else the text.
func resultJSON(text string) any {
	counts := map[string]int64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		at := strings.LastIndexAny(line, ",\t")
		if at < 0 {
			return text
		}
		count, err := strconv.ParseInt(line[at+1:], 10, 64)
		if err != nil {
			return text
		}
		// JSON is UTF-8: words that differ only in invalid bytes are merged, as in the original's decoder.
		counts[strings.ToValidUTF8(line[:at], "\uFFFD")] += count
	}
	return counts
}

// boundedBuffer holds up to dataBytesMax.
type boundedBuffer struct{ bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > dataBytesMax {
		return 0, errDataTooLarge
	}
	return b.Buffer.Write(p)
}
