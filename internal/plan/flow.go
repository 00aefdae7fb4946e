package plan

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/suggest"
)

// Flow is several jobs that are submitted together.
type Flow struct {
	// Order is one in which they can be submitted: each after those that it comes after, and otherwise as they are given.
	Order []int

	peers   map[string]uint32 // by name: their numbers in that order, from 1
	outputs []string          // in that order
}

// peer returns the number of a job; 0: there is none of that name.
func (f *Flow) peer(name string) uint32 {
	if f == nil {
		return 0
	}
	return f.peers[name]
}

// writes reports whether one of these jobs of the flow writes at a location, above or below it.
func (f *Flow) writes(location blob.Location, after []state.Dependency) bool {
	return slices.ContainsFunc(after, func(d state.Dependency) bool {
		if d.Peer == 0 || f.outputs[d.Peer-1] == "" {
			return false
		}
		output := blob.Location(path.Clean(f.outputs[d.Peer-1]))
		_, inside := location.Below(output)
		_, around := output.Below(location)
		return inside || around
	})
}

// NewFlow orders the jobs of a flow. Errors are of type Errors.
func NewFlow(jobs []api.JobRequest) (*Flow, error) {
	if n := len(jobs); n == 0 || n > state.SubmissionMax {
		return nil, failure("jobs", "%d jobs: want 1 to %d in one submission", n, state.SubmissionMax)
	}
	f := flowOrder{jobs: jobs, byName: make(map[string]int, len(jobs)), open: make([]bool, len(jobs)), left: make([]bool, len(jobs))}
	for i := range jobs {
		if err := f.name(i); err != nil {
			return nil, err
		}
	}
	for i := range jobs {
		if err := f.visit(i); err != nil {
			return nil, err
		}
	}
	flow := &Flow{Order: f.order, peers: make(map[string]uint32, len(jobs))}
	for at, i := range f.order {
		flow.peers[jobs[i].Name] = uint32(at) + 1
		flow.outputs = append(flow.outputs, jobs[i].Output)
	}
	return flow, nil
}

// flowOrder is one call of NewFlow.
type flowOrder struct {
	jobs   []api.JobRequest
	byName map[string]int
	path   []int  // the jobs that are being visited, each after the next
	open   []bool // on the path
	left   []bool // visited before
	order  []int
}

func (f *flowOrder) name(i int) error {
	name, field := f.jobs[i].Name, fmt.Sprintf("jobs[%d].name", i)
	_, number := strconv.ParseUint(name, 10, 64)
	switch first, twice := f.byName[name]; {
	case name == "":
		return failure(field, "a job of several needs a name, by which others come after it")
	case number == nil || strings.Contains(name, ":"):
		return failure(field, "%q cannot name a job of several: others name it in after, where numbers are those of jobs that exist, and a colon ends the name", name)
	case twice:
		return failure(field, "%q is the name of jobs[%d] too: give each another one", name, first)
	}
	f.byName[name] = i
	return nil
}

// visit adds a job to the order, after those that it comes after.
func (f *flowOrder) visit(i int) error {
	if f.left[i] {
		return nil
	}
	f.path, f.open[i] = append(f.path, i), true
	for k, text := range f.jobs[i].After {
		name, _, _ := strings.Cut(text, ":")
		if _, err := strconv.ParseUint(name, 10, 64); err == nil {
			continue // a job that exists
		}
		field := fmt.Sprintf("jobs[%d].after[%d]", i, k)
		next, ok := f.byName[name]
		if !ok {
			return f.unknown(field, name)
		}
		if f.open[next] {
			return f.cycle(field, append(slices.Clone(f.path[slices.Index(f.path, next):]), next))
		}
		if err := f.visit(next); err != nil {
			return err
		}
	}
	f.path, f.open[i] = f.path[:len(f.path)-1], false
	f.left[i], f.order = true, append(f.order, i)
	return nil
}

const namesShown = 10 // of the jobs of a flow, in an error

func (f *flowOrder) unknown(field, name string) error {
	names := make([]string, len(f.jobs))
	for i := range f.jobs {
		names[i] = f.jobs[i].Name
	}
	meant := ";"
	if closest := suggest.Closest(name, names); closest != "" {
		meant = fmt.Sprintf("; did you mean %q?", closest)
	}
	more := ""
	if n := len(names) - namesShown; n > 0 {
		names, more = names[:namesShown], fmt.Sprintf(" and %d more", n)
	}
	return failure(field, "there is no job %q here%s there are %s%s, and numbers of jobs that exist", name, meant, strings.Join(names, ", "), more)
}

func (f *flowOrder) cycle(field string, path []int) error {
	var names []string
	for _, i := range path {
		names = append(names, f.jobs[i].Name)
	}
	if n := len(names) - namesShown; n > 0 {
		names = append(append(names[:namesShown-1:namesShown-1], fmt.Sprintf("%d more", n)), names[len(names)-1])
	}
	return failure(field, "a cycle: %s, each of which comes after the next: none of them could start", strings.Join(names, " -> "))
}
