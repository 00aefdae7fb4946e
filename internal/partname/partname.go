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

// ReadsSeveral reports whether a task reads several files.
func ReadsSeveral(in *state.InputReader, task uint64) bool {
	split, err := in.Split(task)
	return err == nil && split.Files != nil
}

// Reads returns the file or the items that a task reads, an item a line, and its part of the file; of several files the names, one a line, and the length
// of all. It is empty if the input is damaged, which the task reports.
func Reads(in *state.InputReader, task uint64) (name string, offset, length uint64) {
	split, err := in.Split(task)
	switch {
	case err != nil:
		return "", 0, 0
	case split.Path != nil:
		return string(split.Path), split.Offset, split.Length
	case split.Files != nil:
		names := make([]string, len(split.Files))
		for i := range split.Files {
			names[i] = string(split.Files[i].Path)
		}
		return strings.Join(names, "\n"), 0, split.Length
	case split.Values != nil:
		return string(placeholder.Text(split.Values, split.Columns)), 0, 0
	}
	return string(split.Item), 0, 0
}
