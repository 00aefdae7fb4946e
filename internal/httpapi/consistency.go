package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// Consistency levels of reads.
const (
	consistencyStale  = "stale"  // the state of this node: the default
	consistencyIndex  = "index"  // at min_index or later: a reader's own writes
	consistencyStrong = "strong" // everything acknowledged before the read
)

// Query parameters of every read.
const (
	queryConsistency = "consistency"
	queryMinIndex    = "min_index"
)

// freshMax bounds the wait for the requested freshness. A node further behind is partitioned or installs a snapshot: another one
// answers sooner.
const freshMax = 5 * time.Second

// freshness is the consistency that a read requests; the zero value is stale.
type freshness struct {
	strong   bool
	minIndex uint64
}

// isRead reports whether a request changes nothing.
func isRead(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// refresh waits until this node is as fresh as the request requires, and returns the request without the parameters for that, which
// handlers do not know.
func (a *API) refresh(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	q := r.URL.Query()
	if !q.Has(queryConsistency) && !q.Has(queryMinIndex) {
		return r, nil
	}
	want, err := parseFreshness(q)
	if err != nil {
		return r, err
	}
	if want.strong {
		index, err := a.readIndex(r.Context())
		if err != nil {
			return r, err
		}
		want.minIndex = max(want.minIndex, index)
	}
	if want.minIndex > 0 {
		if err := a.waitIndex(r.Context(), want.minIndex); err != nil {
			return r, err
		}
	}
	a.stamp(w.Header()) // after the wait
	q.Del(queryConsistency)
	q.Del(queryMinIndex)
	stripped, u := *r, *r.URL
	u.RawQuery = q.Encode()
	stripped.URL = &u
	return &stripped, nil
}

func parseFreshness(q url.Values) (freshness, error) {
	var f freshness
	modes, indices := q[queryConsistency], q[queryMinIndex]
	switch {
	case len(modes) > 1:
		return f, invalidQuery(queryConsistency, "is given twice", modes[1])
	case len(indices) > 1:
		return f, invalidQuery(queryMinIndex, "is given twice", indices[1])
	}
	if len(indices) > 0 {
		var err error
		if f.minIndex, err = strconv.ParseUint(indices[0], 10, 64); err != nil {
			return f, invalidQuery(queryMinIndex, "expected a log position: the X-Bridgefour-Index of an earlier answer", indices[0])
		}
	}
	if len(modes) == 0 {
		return f, nil // min_index alone means index
	}
	switch mode := modes[0]; mode {
	case consistencyStale:
		if len(indices) > 0 {
			return f, invalidQuery(queryMinIndex, "requires consistency=index or strong", indices[0])
		}
	case consistencyIndex:
		if len(indices) == 0 {
			return f, invalidQuery(queryConsistency, "index requires min_index: the X-Bridgefour-Index of an earlier answer", mode)
		}
	case consistencyStrong:
		f.strong = true
	default:
		return f, invalidQuery(queryConsistency, "expected stale, index or strong", mode)
	}
	return f, nil
}

func invalidQuery(name, message, value string) error {
	return api.Invalid("validation failed").With("query."+name, message, shorten(value))
}

// readIndex returns a log position that covers everything acknowledged before the call.
func (a *API) readIndex(ctx context.Context) (uint64, error) {
	waiting, cancel := context.WithTimeout(ctx, freshMax)
	defer cancel()
	index, err := a.leader.ReadIndex(waiting)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return 0, api.Unavailable("strong read impossible: no majority of the leaders confirmed the log position within %v; "+
			"?consistency=stale reads the state of this node", freshMax)
	}
	return index, err
}

// waitIndex returns nil once the state is at index or later.
func (a *API) waitIndex(ctx context.Context, index uint64) error {
	waiting, cancel := context.WithTimeout(ctx, freshMax)
	defer cancel()
	err := a.leader.WaitIndex(waiting, index)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return api.Unavailable("this node is at log position %d and did not reach %d within %v; another leader may have it",
			a.index(), index, freshMax)
	}
	return err
}

// describeFreshness documents the parameters of every read.
func (a *API) describeFreshness() {
	mode := &huma.Param{
		Name: queryConsistency, In: "query",
		Description: "Required freshness: stale (the state of this node), index (at min_index or later), strong (everything " +
			"acknowledged before the request)",
		Schema: &huma.Schema{
			Type: huma.TypeString, Enum: []any{consistencyStale, consistencyIndex, consistencyStrong}, Default: consistencyStale,
		},
	}
	index := &huma.Param{
		Name: queryMinIndex, In: "query",
		Description: "With consistency=index, or alone: answer at this log position or later. The X-Bridgefour-Index of a write's answer covers that write",
		Schema:      &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: new(float64)},
	}
	for _, item := range a.huma.OpenAPI().Paths {
		if item.Get != nil {
			item.Get.Parameters = append(slices.Clip(item.Get.Parameters), mode, index)
		}
	}
}
