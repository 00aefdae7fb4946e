package sim

import (
	"fmt"

	"github.com/bridgefour/bridgefour/internal/state"
)

// inputs is the files that jobs read: their present versions, by path. A version is the time of the last change.
type inputs map[string]int64

func (in inputs) version(path string) int64 { return 1 + in[path] }

// list returns the input of a job of files, as they are now.
func (in inputs) list(p *jobPlan) state.Input {
	list := state.NewFiles(0)
	var pack []state.Split
	for i := range p.files {
		path := fmt.Sprint("/in/", p.uid, "/", i)
		pack = append(pack, state.Split{Path: []byte(path), Version: state.Version{Size: 8, Modified: in.version(path)}, Whole: true})
		if len(pack) > p.packed || i == p.files-1 {
			list.Pack(pack)
			pack = nil
		}
	}
	input, err := list.Input()
	if err != nil {
		panic(err)
	}
	return input
}

// change changes a file of a live job.
func (in inputs) change(w *World, choice int) {
	var all []*jobPlan
	for _, id := range w.oracle.state.Live() {
		if p := w.plans[w.oracle.state.Job(id).UID]; p.files > 0 {
			all = append(all, p)
		}
	}
	if len(all) > 0 {
		p := all[choice%len(all)]
		in[fmt.Sprint("/in/", p.uid, "/", choice/len(all)%p.files)]++
	}
}

// changed returns the files of a job that are not what they were when it was submitted, or retried.
func (in inputs) changed(job *state.Job) []state.FileChange {
	if job == nil || job.Spec.Input.Kind != state.InputFiles {
		return nil
	}
	var list []state.FileChange
	reader := state.NewInputReader(&job.Spec.Input)
	for i := range job.Spec.Input.Tasks {
		split, err := reader.Split(i)
		if err != nil {
			continue
		}
		for k, f := range filesOf(&split) {
			if v := in.version(string(f.Path)); f.Version.Known() && v != f.Version.Modified {
				list = append(list, state.FileChange{Task: i, File: uint64(k), Version: state.Version{Size: 8, Modified: v}})
			}
		}
	}
	return list
}

// filesOf are the files of a split.
func filesOf(s *state.Split) []state.Split {
	if s.Files != nil {
		return s.Files
	}
	return []state.Split{*s}
}
