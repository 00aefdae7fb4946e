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

// How fresh a read must be.
const (
	consistencyStale  = "stale"  // as this node knows it: the default
	consistencyIndex  = "index"  // from min_index on: a reader's own writes
	consistencyStrong = "strong" // with everything acknowledged before the read
)

// The query parameters that every read takes.
const (
	queryConsistency = "consistency"
	queryMinIndex    = "min_index"
)

// freshMax is how long a read waits for the freshness that it asks for. A node that is further behind has been cut off, or is
// fetching a snapshot: another one answers sooner.
const freshMax = 5 * time.Second

// freshness is what a read asks for; the zero value is stale.
type freshness struct {
	strong   bool
	minIndex uint64
}

// isRead reports whether a request changes nothing.
func isRead(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// refresh waits until this node can answer as freshly as the request asks, and returns the request without the parameters
// that asked, for a handler that does not know them.
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
	a.stamp(w.Header()) // it has waited
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
			return f, invalidQuery(queryMinIndex, "goes with consistency=index or strong, and not with stale", indices[0])
		}
	case consistencyIndex:
		if len(indices) == 0 {
			return f, invalidQuery(queryConsistency, "index needs min_index: the X-Bridgefour-Index of an earlier answer", mode)
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

// readIndex is a log position that has everything acknowledged before the call.
func (a *API) readIndex(ctx context.Context) (uint64, error) {
	waiting, cancel := context.WithTimeout(ctx, freshMax)
	defer cancel()
	index, err := a.leader.ReadIndex(waiting)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return 0, api.Unavailable("no majority of the leaders confirmed within %v what is current, so this read cannot be strong; "+
			"?consistency=stale reads what this node has", freshMax)
	}
	return index, err
}

// waitIndex returns without error when the state is at index or later.
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

// describeFreshness puts the parameters that ServeHTTP reads into the description of every read.
func (a *API) describeFreshness() {
	mode := &huma.Param{
		Name: queryConsistency, In: "query",
		Description: "How fresh the answer must be: stale (as this node knows it), index (at min_index or later), strong (with " +
			"everything acknowledged before the request)",
		Schema: &huma.Schema{
			Type: huma.TypeString, Enum: []any{consistencyStale, consistencyIndex, consistencyStrong}, Default: consistencyStale,
		},
	}
	index := &huma.Param{
		Name: queryMinIndex, In: "query",
		Description: "With consistency=index, or alone: answer from this log position or a later one. X-Bridgefour-Index of a write reads that write",
		Schema:      &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: new(float64)},
	}
	for _, item := range a.huma.OpenAPI().Paths {
		if item.Get != nil {
			item.Get.Parameters = append(slices.Clip(item.Get.Parameters), mode, index)
		}
	}
}
