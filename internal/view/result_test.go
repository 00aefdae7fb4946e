package view

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/state"
)

// published is a reader of job 1, which is done, with parts n1, n2, … of these texts in dir.
func published(t *testing.T, dir string, texts ...string) *Reader {
	t.Helper()
	spec := &state.Spec{Name: "x", Output: dir, NameParts: "n{}"}
	spec.Input, _ = state.RangeInput(1, int64(len(texts)))
	r := doneJob(t, spec, 0, func(e *state.Entry) {
		var list []state.Completion
		for i, text := range texts {
			list = append(list, state.Completion{Index: uint64(i), Lease: state.NewLease(1, uint64(i+1)), Size: uint64(len(text)), Checksum: xxhash.Sum64String(text)})
		}
		e.Done(1, 1, 0, list)
		e.Done(1, 1, 1, []state.Completion{{Lease: state.NewLease(1, 99)}})
	})
	for i, text := range texts {
		replace(t, dir, i, text)
	}
	r.stores = blob.Stores{"": blob.NewFiles()}
	r.views.put(&api.Job{ID: 1, Status: api.JobDone, Output: dir})
	return r
}

func replace(t *testing.T, dir string, part int, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "n"+string(rune('1'+part))), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replacing is a writer that replaces a part when something is written to it.
type replacing struct {
	text bytes.Buffer
	do   func()
}

func (r *replacing) Write(p []byte) (int, error) {
	r.do()
	return r.text.Write(p)
}

// TestResultIsWhatWasPublished: parts that were replaced before the answer are never sent, in no part; what is replaced while it is sent is sent as
// it was, or ends the answer before a byte of it.
func TestResultIsWhatWasPublished(t *testing.T) {
	long := strings.Repeat("long line\n", inMemoryMax/10)
	for _, texts := range [][]string{{"one\n", "two\n", "three\n"}, {"one\n", long, "three\n"}, {"one\n", long + "longer\n", "three\n"}} {
		dir := t.TempDir()
		r := published(t, dir, texts...)
		all := strings.Join(texts, "")
		var out bytes.Buffer
		if err := r.Result(t.Context(), 1, &out); err != nil || out.String() != all {
			t.Errorf("Result = %d bytes, %v, want %d", out.Len(), err, len(all))
		}
		var pieces bytes.Buffer
		q := api.PartQuery{Job: 1, Task: 1, Offset: 2, Inputs: true}
		if err := r.StreamParts(t.Context(), q, func(p api.Part) error {
			_, err := pieces.Write(p.Text)
			return err
		}); err != nil || pieces.String() != texts[1][2:]+texts[2] {
			t.Errorf("StreamParts = %d bytes, %v", pieces.Len(), err)
		}
		small := len(all) <= inMemoryMax
		late := &replacing{do: func() { replace(t, dir, 2, "THREE\n") }}
		err := r.Result(t.Context(), 1, late)
		want := slices.Clone(texts)
		if !small {
			want[2] = ""
		}
		if got := late.text.String(); got != strings.Join(want, "") || small != (err == nil) || !small && !api.IsStatus(err, http.StatusGone) {
			t.Errorf("Result of parts that are replaced meanwhile = %d bytes, %v", len(got), err)
		}
		out.Reset()
		if err := r.Result(t.Context(), 1, &out); !api.IsStatus(err, http.StatusGone) || out.Len() > 0 {
			t.Errorf("Result of a replaced part = %q, %v, want nothing and a 410", out.String(), err)
		}
	}
}
