// Package partname gives the parts of a job their names: part-NNNNN, or those of a pattern, whose placeholders (package placeholder) stand for
// what the task of the part reads.
package partname

import (
	"strings"

	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Names are the names of the parts of a job. Not for concurrent use.
type Names struct {
	pattern *placeholder.Command // nil: part-NNNNN
	tasks   uint64
	input   *state.InputReader
}

// New returns the names of the parts of so many tasks. The input must not change. An empty pattern stands for part-NNNNN.
func New(pattern string, in *state.Input, tasks uint64) *Names {
	n := &Names{tasks: tasks, input: state.NewInputReader(in)}
	if pattern != "" {
		n.pattern = Compile(pattern, in.Columns())
	}
	return n
}

// Of returns the names of the parts of a job.
func Of(spec *state.Spec) *Names {
	return New(spec.NameParts, &spec.Input, spec.Stages[spec.PartStage()].Tasks)
}

// Compile compiles a pattern for items with these columns; nil: not a list.
func Compile(pattern string, columns []string) *placeholder.Command {
	return placeholder.Compile([]string{pattern}, placeholder.Options{Mode: placeholder.Braces, Columns: columns})
}

// Name returns the name of a task's part, below the output folder. An error quotes the name.
func (n *Names) Name(task uint64) (string, error) {
	if n.pattern == nil {
		return layout.Part(task, n.tasks), nil
	}
	split, err := n.input.Split(task)
	if err != nil {
		return "", err
	}
	v := placeholder.Values{Items: Items(&split), Number: task + 1}
	name := strings.Join(n.pattern.Expand(&v, false), " ")
	clean, err := layout.CleanName(name)
	if err != nil {
		return "", &Error{Name: name, Err: err}
	}
	return clean, nil
}

// Input is the input of the job.
func (n *Names) Input() *state.InputReader { return n.input }

// Items are the values of the placeholders of a split.
func Items(split *state.Split) []string {
	if split.Values == nil {
		return []string{string(split.Path) + string(split.Item)}
	}
	items := make([]string, len(split.Values))
	for i, value := range split.Values {
		items[i] = string(value)
	}
	return items
}

// Error reports a name that no part can have.
type Error struct {
	Name string
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Reading is what a task reads: one file or a part of it, several files, or items. The zero value is a damaged input, which the task reports.
type Reading struct {
	Offset, Length uint64 // of its part of the file; of several files, the length of all

	split state.Split
}

// Reads returns what a task reads.
func Reads(in *state.InputReader, task uint64) Reading {
	split, err := in.Split(task)
	if err != nil {
		return Reading{}
	}
	return Reading{Offset: split.Offset, Length: split.Length, split: split}
}

// Len is the number of files or items; 0: not known.
func (r *Reading) Len() int {
	switch s := &r.split; {
	case s.Files != nil:
		return len(s.Files)
	case s.Values != nil:
		return len(s.Values) / max(s.Columns, 1)
	case s.Path != nil || s.Item != nil:
		return 1
	}
	return 0
}

// Name is the path of a file, or an item, with tabs between its columns.
func (r *Reading) Name(i int) string {
	switch s := &r.split; {
	case s.Files != nil:
		return string(s.Files[i].Path)
	case s.Values != nil:
		n := max(s.Columns, 1)
		return string(placeholder.Text(s.Values[i*n:(i+1)*n], n))
	}
	return string(r.split.Path) + string(r.split.Item)
}

// Names are all of them.
func (r *Reading) Names() []string {
	names := make([]string, r.Len())
	for i := range names {
		names[i] = r.Name(i)
	}
	return names
}
