package node

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
)

// noise is n bytes that cannot be compressed, in lines of 64 KiB.
func noise(n int) []byte {
	text := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(text) // never fails
	for i := range text {
		if text[i] == '\n' {
			text[i] = ' '
		}
		if i%(64<<10) == 0 {
			text[i] = '\n'
		}
	}
	return text
}

func TestSubmitIsBounded(t *testing.T) {
	l := newRig(t).node
	for _, c := range []struct {
		change func(*api.JobRequest)
		want   string
	}{
		{func(r *api.JobRequest) { r.Range, r.Lines = nil, &api.Lines{Raw: noise(leader.JobBytesMax + 1)} }, "limit is 32 MiB (its lists of lines and files count as compressed): put the lines into files"},
		{func(r *api.JobRequest) {
			r.Program.Command = append(r.Program.Command, string(bytes.Repeat([]byte("x"), 70<<20)))
		}, "takes 70.0 MiB"},
		{func(r *api.JobRequest) {
			r.Set = map[string]string{"k": string(bytes.Repeat([]byte("x"), leader.JobBytesMax))}
		}, "put what is long"},
	} {
		req := request(1)
		c.change(req)
		_, _, err := l.Submit(t.Context(), req, "key")
		problemOf(t, err, http.StatusRequestEntityTooLarge, c.want)
	}
	req := request(1)
	req.Range, req.Lines = nil, &api.Lines{Raw: noise(leader.JobBytesMax - 1<<20)}
	if job := submit(t, l, req, "key"); job.ID != 1 {
		t.Errorf("the job is %d, want 1: the key was not used by those refused", job.ID)
	}
}
