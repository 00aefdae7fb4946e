package compat

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

// dataBytesMax bounds a result that is sent as JSON: it has to be in memory for that.
const dataBytesMax = 64 << 20

var errDataTooLarge = errors.New("result too large")

// data gives the collected result of a job that is done, else its status.
func (s system) data(r *http.Request, _ func(any) error) (any, error) {
	job, ok, err := s.jobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	if job.Status != api.JobDone {
		return executionStatus(&job), nil
	}
	var result boundedBuffer
	if err := s.node.Result(r.Context(), job.ID, &result); err != nil {
		if errors.Is(err, errDataTooLarge) {
			return nil, api.NewProblem(http.StatusUnprocessableEntity,
				"the result of job %d is larger than %d bytes: too large for this route; GET /v1/jobs/%d/result streams it",
				job.ID, dataBytesMax, job.ID)
		}
		return nil, err
	}
	return resultJSON(result.String()), nil
}

// resultJSON is an object of counts where every line is "word,count" or "key<TAB>count", else the text as it is.
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
		// JSON has no other bytes than UTF-8. Words that differ only in such bytes become one, as in the original's decoder.
		counts[strings.ToValidUTF8(line[:at], "\uFFFD")] += count
	}
	return counts
}

// boundedBuffer refuses what is over dataBytesMax.
type boundedBuffer struct{ bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > dataBytesMax {
		return 0, errDataTooLarge
	}
	return b.Buffer.Write(p)
}
