package state

import "testing"

// TestReadAgain: what a task has read counts once, however often its output is lost and made again. Below feature level 2 it counts each time.
func TestReadAgain(t *testing.T) {
	const size, tasks = 1000, 3
	for level, twice := range map[uint32]uint64{1: 2 * size, FeatureLevel: 0} {
		m := failing(t, level, 0)
		files := NewFiles(size)
		files.AddFile([]byte("/in"), Version{Size: size * tasks}, false)
		input, err := files.Input()
		if err != nil {
			t.Fatal(err)
		}
		steps := []struct {
			name string
			fill func(e *Entry)
			want uint64
		}{
			{"the map stage", func(e *Entry) {
				e.Submit("", "uid", "", &Spec{Output: "/out", Input: input, Stages: []StageSpec{
					{Name: "map", Role: RoleMap, Tasks: tasks},
					{Name: "reduce", Role: RoleReduce, Tasks: 1, From: []uint32{0}},
					{Name: "commit", Role: RoleCommit, Tasks: 1, From: []uint32{1}},
				}})
				for i := range uint64(tasks) {
					e.Done(1, 1, 0, []Completion{{Index: i, Lease: 10, InputBytes: size}})
				}
			}, size * tasks},
			{"the loss of two outputs, one reported twice", func(e *Entry) {
				for _, task := range []uint64{0, 2, 2} {
					e.OutputLost(1, 0, task, 10, 1, "gone")
				}
			}, size + twice},
			{"their next attempts", func(e *Entry) {
				e.Done(1, 1, 0, []Completion{{Index: 0, Lease: 20, InputBytes: size}, {Index: 2, Lease: 21, InputBytes: size}})
			}, size*tasks + twice},
		}
		for _, step := range steps {
			e := NewEntry(2, level)
			step.fill(e)
			if err := m.Apply(m.Index()+1, e.Data(), &Result{}); err != nil {
				t.Fatal(err)
			}
			if got := m.Job(1).ReadBytes; got != step.want {
				t.Errorf("level %d, after %s: %d bytes read, want %d", level, step.name, got, step.want)
			}
		}
	}
}
