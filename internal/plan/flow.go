package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/suggest"
)

// Order returns an order in which the jobs of a flow can be submitted, each after those that it comes after, and otherwise as they are given; and,
// for Options.Peers, the numbers that they have in it. Errors are of type Errors.
func Order(jobs []api.JobRequest) (order []int, peers map[string]uint32, err error) {
	if n := len(jobs); n == 0 || n > state.SubmissionMax {
		return nil, nil, failure("jobs", "%d jobs: want 1 to %d in one submission", n, state.SubmissionMax)
	}
	f := flow{jobs: jobs, byName: make(map[string]int, len(jobs)), open: make([]bool, len(jobs)), left: make([]bool, len(jobs))}
	for i := range jobs {
		if err := f.name(i); err != nil {
			return nil, nil, err
		}
	}
	for i := range jobs {
		if err := f.visit(i); err != nil {
			return nil, nil, err
		}
	}
	peers = make(map[string]uint32, len(jobs))
	for at, i := range f.order {
		peers[jobs[i].Name] = uint32(at) + 1
	}
	return f.order, peers, nil
}

// flow is one call of Order.
type flow struct {
	jobs   []api.JobRequest
	byName map[string]int
	path   []int  // the jobs that are being visited, each after the next
	open   []bool // on the path
	left   []bool // visited before
	order  []int
}

func (f *flow) name(i int) error {
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
func (f *flow) visit(i int) error {
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

func (f *flow) unknown(field, name string) error {
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

func (f *flow) cycle(field string, path []int) error {
	var names []string
	for _, i := range path {
		names = append(names, f.jobs[i].Name)
	}
	if n := len(names) - namesShown; n > 0 {
		names = append(append(names[:namesShown-1:namesShown-1], fmt.Sprintf("%d more", n)), names[len(names)-1])
	}
	return failure(field, "a cycle: %s, each of which comes after the next: none of them could start", strings.Join(names, " -> "))
}
