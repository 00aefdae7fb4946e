package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// reduction is a job that counts the words of a book: a map task for each chapter, and reduce tasks that wait at a gate.
type reduction struct {
	*cluster

	id     uint64
	ledger ledger // of both stages
	out    string
	want   []string // lines of all parts, sorted
	tasks  int
}

const reducers = 4

func (c *cluster) beginReduction(tasks int) *reduction {
	c.t.Helper()
	r := &reduction{cluster: c, ledger: c.ledger("ledger"), out: c.path("out"), tasks: tasks}
	counts := map[string]int{}
	for _, file := range book(c.t, c.path("in"), tasks) {
		for word := range strings.FieldsSeq(readFile(c.t, file)) {
			counts[word]++
		}
	}
	for word, n := range counts {
		r.want = append(r.want, fmt.Sprintf("%s\t%d", word, n))
	}
	slices.Sort(r.want)
	begun := step(`echo "$B4_STAGE $B4_TASK $B4_ATTEMPT" >> "` + c.path("begun") + `"`)
	r.id = c.submit(&api.JobRequest{
		Inputs: []string{c.path("in")}, Split: "none", Output: r.out, Partitions: reducers,
		Program: api.Program{
			Command: []string{"sh", "-c", sequence([]step{begun, `tr -s ' \t\f\r\v' '\n' | grep -v '^$'`})},
			Reduce:  sequence([]step{begun, waitFor(c.path("gate")), `uniq -c | awk '{print $2 "\t" $1}'`}),
		},
	})
	return r
}

// begun counts the attempts of a stage that were begun, by task.
func (r *reduction) begun(stage string) map[string]int {
	r.t.Helper()
	counts := map[string]int{}
	if !exists(r.path("begun")) {
		return counts
	}
	for line := range strings.Lines(readFile(r.t, r.path("begun"))) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == stage {
			counts[f[1]]++
		}
	}
	return counts
}

// segments are the files of the winners of the map stage, by task.
func (r *reduction) segments() []string {
	r.t.Helper()
	var list []string
	for i := range r.tasks {
		found, err := filepath.Glob(filepath.Join(r.out, "_temporary", "*", fmt.Sprintf("map-%d-*", i)))
		if err != nil || len(found) != 1 {
			r.t.Fatalf("segments of map task %d: %q, %v", i, found, err)
		}
		list = append(list, found[0])
	}
	return list
}

// wantCounts opens the gate, and checks the output: each word once, in one part, in order.
func (r *reduction) wantCounts() {
	r.t.Helper()
	write(r.t, r.path("gate"), "")
	r.done(r.id)
	var got []string
	for i := range reducers {
		var words []string
		for line := range strings.Lines(readFile(r.t, filepath.Join(r.out, fmt.Sprintf("part-%05d", i)))) {
			got = append(got, strings.TrimSuffix(line, "\n"))
			words = append(words, strings.Fields(line)[0])
		}
		if !slices.IsSorted(words) {
			r.t.Errorf("part %d is not in order", i)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, r.want) {
		r.t.Errorf("%d counts are not the %d right ones", len(got), len(r.want))
	}
	wantOutput(r.t, r.out, make([][]byte, reducers))
}

// TestSegmentsLost removes, cuts, changes and replaces outputs of map tasks while a reduce task runs: of the map stage those tasks alone run again, and the reduce tasks are
// not charged.
func TestSegmentsLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.worker("one", "--slots", "1")
	c.untilAlive(1)
	r := c.beginReduction(6)
	until(t, "the first reduce task runs", func() bool { return len(r.begun("reduce")) == 1 })
	segments := r.segments()
	if err := os.Remove(segments[1]); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segments[3], 100); err != nil {
		t.Fatal(err)
	}
	text := []byte(readFile(t, segments[4]))
	text[len(text)/2] ^= 0x10
	write(t, segments[4], string(text))
	if err := errors.Join(os.Remove(segments[5]), os.Mkdir(segments[5], 0o755)); err != nil {
		t.Fatal(err)
	}
	r.wantCounts()
	want := map[string]int{"0": 1, "1": 2, "2": 1, "3": 2, "4": 2, "5": 2}
	if got := r.begun("map"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("map tasks begun: %v, want %v", got, want)
	}
	for _, task := range c.tasks(r.id, api.TaskQuery{}) {
		for _, f := range task.Failures {
			if f.Kind != "lost_output" || task.Stage != "map" || !strings.Contains(f.Message, "/"+strings.ReplaceAll(strings.TrimPrefix(task.Name, "1/"), "/", "-")+"-") {
				t.Errorf("failure of %s: %+v", task.Name, f)
			}
		}
	}
}

// TestPartsLost removes and cuts outputs of done reduce tasks before the commit: those tasks alone run again, and the commit is not charged.
func TestPartsLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.worker("one", "--slots", "1")
	c.untilAlive(1)
	begun := step(`echo "$B4_STAGE $B4_TASK $B4_ATTEMPT" >> "` + c.path("begun") + `"`)
	id := c.submit(&api.JobRequest{
		Range: &api.Range{From: 1, To: 9}, Output: c.path("out"), Partitions: reducers,
		Program: api.Program{
			Command: []string{"sh", "-c", sequence([]step{begun, printItem}), "sh", "{}"},
			Reduce:  sequence([]step{begun, `[ $B4_TASK != 3 ] || ` + waitFor(c.path("gate")), "cat"}),
		},
	})
	part := func(task int) string {
		found, err := filepath.Glob(filepath.Join(c.path("out"), "_temporary", "*", fmt.Sprintf("reduce-%d-*", task)))
		if err != nil || len(found) != 1 {
			t.Fatalf("output of reduce task %d: %q, %v", task, found, err)
		}
		return found[0]
	}
	until(t, "the last reduce task waits", func() bool { return c.job(id).Stages[1].Done == reducers-1 })
	if err := os.Remove(part(0)); err != nil {
		t.Fatal(err)
	}
	write(t, part(2), "cut")
	write(t, c.path("gate"), "")
	c.done(id)
	wantOutput(t, c.path("out"), make([][]byte, reducers))
	var lines []string
	for i := range reducers {
		lines = append(lines, strings.Fields(readFile(t, filepath.Join(c.path("out"), fmt.Sprintf("part-%05d", i))))...)
	}
	if slices.Sort(lines); !slices.Equal(lines, strings.Split("123456789", "")) {
		t.Errorf("the parts have %q", lines)
	}
	if r := (&reduction{cluster: c}); fmt.Sprint(r.begun("reduce")) != "map[0:2 1:1 2:2 3:1]" || len(r.begun("map")) != 9 || strings.Count(readFile(t, c.path("begun")), "map") != 9 {
		t.Errorf("tasks begun: %v", readFile(t, c.path("begun")))
	}
	for _, task := range c.tasks(id, api.TaskQuery{}) {
		for _, f := range task.Failures {
			if f.Kind != "lost_output" || task.Name != fmt.Sprintf("%d/reduce/0", id) && task.Name != fmt.Sprintf("%d/reduce/2", id) {
				t.Errorf("failure of %s: %+v", task.Name, f)
			}
		}
	}
}

// TestSegmentsRemoved: the segments of a job without an output folder are removed when it is done, and its result stays.
func TestSegmentsRemoved(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.worker("one", "--slots", "1")
	c.untilAlive(1)
	id := c.submit(&api.JobRequest{
		Range: &api.Range{From: 1, To: 4}, Partitions: 2, Program: api.Program{Command: []string{"echo", "{}"}, Reduce: "cat"},
	})
	c.done(id)
	files := func(pattern string) []string {
		var list []string
		err := filepath.WalkDir(c.path("leader"), func(path string, _ fs.DirEntry, err error) error {
			if match, _ := filepath.Match(pattern, filepath.Base(path)); match {
				list = append(list, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return list
	}
	until(t, "no segment is left", func() bool { return len(files("map-*-*")) == 0 })
	if n := len(files("reduce-*-*")); n != 2 {
		t.Errorf("%d outputs of the reduce are left, want 2", n)
	}
}

// TestReduceKilled kills a worker in the map stage, one in the reduce stage, and the leader in between.
func TestReduceKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	first := c.worker("one", "--slots", "1")
	c.untilAlive(1)
	r := c.beginReduction(8)
	until(t, "a map task is begun", func() bool { return len(r.begun("map")) >= 2 })
	first.kill()
	second := c.worker("two")
	until(t, "reduce tasks run", func() bool { return len(r.begun("reduce")) >= 1 })
	c.leader.kill()
	c.startLeader()
	second.kill()
	c.worker("three")
	r.wantCounts()
}
