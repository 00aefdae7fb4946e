package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// TestInput runs jobs over unusual inputs, on one cluster.
func TestInput(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(2)
	for _, test := range []struct {
		name string
		run  func(*cluster)
	}{
		{"names", oddNames},
		{"compressed", compressedInput},
		{"garbage", garbage},
		{"empty files", emptyFiles},
		{"splits", splits},
		{"file removed", fileRemoved},
		{"keep partial", keepPartial},
		{"refused at submit", refusedAtSubmit},
		{"long line", longLine},
	} {
		t.Run(test.name, func(t *testing.T) {
			// The folder is the subtest's own; the processes are the test's.
			test.run(c.in(newLab(t)))
		})
	}
}

// oddNames: file names are arbitrary bytes.
func oddNames(c *cluster) {
	odd := []string{"with space", "with\nnewline", "not\xffutf8", "star*[a]?", `quote"'\`, "{}", "-rf", "ünïcode", "$(reboot)", "tab\t"}
	slices.Sort(odd)
	var paths []string
	for i, name := range odd {
		paths = append(paths, c.path("odd", name))
		write(c.t, paths[i], fmt.Sprintf("content %d\nof %q\n", i, name))
	}
	for name, program := range map[string]api.Program{
		"by-name":  {Command: []string{"sh", "-c", `test "$1" = "$B4_INPUT" && sha256sum < "$1"`, "sh", "{}"}},
		"by-stdin": {Command: []string{"sha256sum"}},
	} {
		out := c.path(name)
		c.done(c.submit(&api.JobRequest{Inputs: []string{c.path("odd")}, Split: "none", Output: out, Program: program}))
		got := string(sh(c.t, out, "cat part-* | sort"))
		if want := string(sh(c.t, "/", `for f; do sha256sum < "$f"; done | sort`, paths...)); got != want {
			c.t.Errorf("%s: sums %q, want %q", name, got, want)
		}
		wantOutput(c.t, out, make([][]byte, len(odd)))
	}
}

// compressedInput: .gz, .zst and .bz2 files are decompressed.
func compressedInput(c *cluster) {
	files := book(c.t, c.path("plain"), 3)
	for i, tool := range []string{"gzip", "zstd", "bzip2"} {
		if _, err := exec.LookPath(tool); err != nil {
			c.t.Skipf("there is no %s on this machine", tool)
		}
		suffix := map[string]string{"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2"}[tool]
		write(c.t, c.path("packed", filepath.Base(files[i])+suffix), string(sh(c.t, "/", tool+` -c < "$1"`, files[i])))
	}
	out, lines := c.path("out"), c.path("lines")
	counts := c.submit(&api.JobRequest{Inputs: []string{c.path("packed")}, Output: out, Program: api.Program{Builtin: "wordcount"}})
	count := c.submit(&api.JobRequest{Inputs: []string{c.path("packed")}, Output: lines, Program: api.Program{Command: []string{"wc", "-l"}}})
	c.done(counts)
	c.done(count)
	wantOutput(c.t, out, [][]byte{sh(c.t, "/", resultOf, files...)})
	wantOutput(c.t, lines, each(c.t, files, `wc -l < "$1"`))

	// A truncated one is bad input.
	whole := readFile(c.t, c.path("packed", filepath.Base(files[0])+".gz"))
	write(c.t, c.path("cut.gz"), whole[:len(whole)/2])
	job := c.fails(c.submit(&api.JobRequest{Inputs: []string{c.path("cut.gz")}, Output: c.path("cut"), Program: api.Program{Builtin: "wordcount"}}))
	wantText(c.t, job.Error, "cut.gz", "gzip")
	if job.Stages[0].Retried != 0 {
		c.t.Errorf("%d attempts were retried, want none: bad input is not tried again", job.Stages[0].Retried)
	}
}

// garbage: arbitrary bytes are data, and are cut at line ends behind the text that the file begins with.
func garbage(c *cluster) {
	write(c.t, c.path("in", "garbage"), string(sh(c.t, "/", `seq 15000; head -c 300000 "$1"; printf '\na\000b \377\376 a\000b\n\n\n \r\n'; head -c 200000 /dev/urandom`, binary)))
	file := []string{c.path("in", "garbage")}
	same, lines := c.path("same"), c.path("lines")
	copied := c.submit(&api.JobRequest{Inputs: file, Split: "64KiB", Output: same, Program: api.Program{Command: []string{"cat"}}})
	counted := c.submit(&api.JobRequest{Inputs: file, Split: "none", Output: lines, Program: api.Program{Command: []string{"wc", "-lc"}}})
	words := c.submit(&api.JobRequest{Inputs: file, Split: "64KiB", Program: api.Program{Builtin: "wordcount"}})
	c.done(copied)
	c.done(counted)
	c.done(words)
	if got, want := sh(c.t, same, "cat part-* | sha256sum"), sh(c.t, "/", `sha256sum < "$1"`, file...); !bytes.Equal(got, want) {
		c.t.Errorf("cat of the splits: %s, want %s", got, want)
	}
	wantOutput(c.t, lines, each(c.t, file, `wc -lc < "$1"`))
	if got := c.result(words); !strings.Contains(got, "a\x00b\t2\n") {
		c.t.Errorf("the words lack a\\0b: %s", brief([]byte(got)))
	}
}

// emptyFiles: an empty file is an input like any other.
func emptyFiles(c *cluster) {
	for _, name := range []string{"a", "b", "c"} {
		write(c.t, c.path("in", name), "")
	}
	counts, words := c.path("counts"), c.path("words")
	counted := c.submit(&api.JobRequest{Inputs: []string{c.path("in")}, Output: counts, Program: api.Program{Command: []string{"wc", "-c"}}})
	worded := c.submit(&api.JobRequest{Inputs: []string{c.path("in")}, Output: words, Program: api.Program{Builtin: "wordcount"}})
	silent := c.submit(&api.JobRequest{Inputs: []string{c.path("in")}, Output: c.path("silent"), Program: api.Program{Command: []string{"true"}}})
	for _, id := range []uint64{counted, worded, silent} {
		c.done(id)
	}
	zero, nothing := []byte("0\n"), []byte{}
	wantOutput(c.t, counts, [][]byte{zero, zero, zero})
	wantOutput(c.t, words, [][]byte{nothing})
	wantOutput(c.t, c.path("silent"), [][]byte{nothing, nothing, nothing})
}

// splits: a large file is cut between lines, so that each line is read once.
func splits(c *cluster) {
	file := c.path("in", "all")
	write(c.t, file, strings.TrimSuffix(readFile(c.t, "../../testdata/book/opticks.txt"), "\n")) // the last line has no end
	same, words := c.path("same"), c.path("words")
	copied := c.submit(&api.JobRequest{Inputs: []string{file}, Split: "10007", Output: same, Program: api.Program{Command: []string{"cat"}}})
	counted := c.submit(&api.JobRequest{Inputs: []string{file}, Split: "10007", Output: words, Program: api.Program{Builtin: "wordcount"}})
	if tasks := c.done(copied).Stages[0].Tasks; tasks < 50 {
		c.t.Errorf("%d tasks, want one per 10007 bytes", tasks)
	}
	c.done(counted)
	if got := sh(c.t, same, "cat part-*"); string(got) != readFile(c.t, file) {
		c.t.Errorf("cat of the splits is %s", brief(got))
	}
	wantOutput(c.t, words, [][]byte{sh(c.t, "/", resultOf, file)})
}

// fileRemoved: an input that is removed after the submit fails its task alone, as bad input; a retry after it was restored runs only that
// task.
func fileRemoved(c *cluster) {
	files := book(c.t, c.path("in"), 4)
	l := c.ledger("ledger")
	out := c.path("out")
	blocked := c.submit(&api.JobRequest{Range: numbers(4), Priority: new(100), Program: item(waitFor(c.path("gate")))})
	c.untilMap(blocked, "4 running", func(s api.Stage) bool { return s.Running == 4 })
	id := c.submit(&api.JobRequest{Inputs: []string{c.path("in")}, Split: "none", Output: out, Program: split(l.record(), upperCase)})
	text := readFile(c.t, files[2])
	for _, change := range []error{os.Remove(files[2]), os.Symlink(c.path("nowhere"), files[2])} {
		if change != nil {
			c.t.Fatal(change)
		}
	}
	write(c.t, c.path("gate"), "")
	job := c.fails(id)
	wantText(c.t, job.Error, files[2], "no such file")
	dead := c.tasks(id, api.TaskQuery{Status: api.TaskDead})
	if len(dead) != 1 || dead[0].Index != 2 || dead[0].Attempts != 1 || dead[0].Failures[0].Kind != "bad_input" {
		c.t.Errorf("dead: %+v, want task 2, by bad input, after one attempt", dead)
	}
	if s := job.Stages[0]; s.Done != 3 || s.Dead != 1 {
		c.t.Errorf("%+v, want 3 done, 1 dead", s)
	}
	for _, name := range names(c.t, out) {
		if name != "_temporary" { // finished tasks are kept there for a retry
			c.t.Errorf("a failed job has left %s", name)
		}
	}
	if err := os.Remove(files[2]); err != nil {
		c.t.Fatal(err)
	}
	write(c.t, files[2], text)
	if code, _, stderr := c.cli("retry", fmt.Sprint(id)); code != 0 {
		c.t.Fatalf("retry: exit code %d: %s", code, stderr)
	}
	c.done(id)
	wantOutput(c.t, out, each(c.t, files, upperCaseOf))
	l.wantOnce(4)
}

// keepPartial: the finished parts of a failed job are published, with a manifest of a partial output.
func keepPartial(c *cluster) {
	out := c.path("out")
	id := c.submit(&api.JobRequest{
		Range: numbers(4), Output: out, KeepPartial: true, Retries: new(0), Program: item("test $1 != 3 -o -e fixed && echo $1"),
	})
	c.fails(id)
	wantNames(c.t, out, "_PARTIAL", "part-00000", "part-00001", "part-00003")
	m := readManifest(c.t, out+"/_PARTIAL")
	if len(m.Parts) != 3 || !slices.Equal(m.Missing, []uint64{2}) {
		c.t.Errorf("manifest: %+v, want 3 parts, missing 2", m)
	}
	write(c.t, c.path("fixed"), "")
	c.retry(id)
	c.done(id)
	wantNumbers(c.t, out, 4, "echo $1")
}

// refusedAtSubmit: errors that are known at submit are reported then, with the way out.
func refusedAtSubmit(c *cluster) {
	write(c.t, c.path("in", "file"), "x\n")
	write(c.t, c.path("full", "part-00000"), "precious\n")
	cat := api.Program{Command: []string{"cat"}}
	input := []string{c.path("in")}
	for _, test := range []struct {
		request api.JobRequest
		want    []string
	}{
		{api.JobRequest{Inputs: input, Program: cat, Output: c.path("full")}, []string{c.path("full"), "not empty", "overwrite"}},
		{api.JobRequest{Inputs: input, Program: cat, Output: c.path("in", "out")}, []string{"inside input", c.path("in")}},
		{api.JobRequest{Inputs: []string{c.path("nowhere")}, Program: cat}, []string{c.path("nowhere")}},
		{api.JobRequest{Inputs: []string{c.path("*.gz")}, Program: cat}, []string{c.path("*.gz"), "matches no file"}},
		{api.JobRequest{Inputs: input, Program: api.Program{Builtin: "wordcuont"}}, []string{"wordcuont"}},
	} {
		wantText(c.t, c.refused(&test.request), test.want...)
	}
	if got := readFile(c.t, c.path("full", "part-00000")); got != "precious\n" {
		c.t.Errorf("the file that was there holds %q", got)
	}

	// A second job for a folder within the output of a live job is refused, if it is not to wait.
	slow := c.submit(&api.JobRequest{Range: numbers(1), Output: c.path("out"), Program: item(waitFor(c.path("gate")))})
	wantText(c.t, c.refused(&api.JobRequest{Range: numbers(1), Output: c.path("out", "below"), Program: item("true"), OnConflict: "fail"}),
		fmt.Sprintf("job %d", slow), c.path("out"), "wait for it")
	write(c.t, c.path("gate"), "")
	c.done(slow)
}

// longLine: a line of several splits is one record, of one split, to a command and to a built-in job.
func longLine(c *cluster) {
	file := c.path("in", "long")
	text := strings.Repeat("first line\n", 1<<16/len("first line\n")+1) // otherwise it is binary, and is not cut
	write(c.t, file, text)
	const size = 64 << 20
	if err := os.Truncate(file, size); err != nil { // sparse: zero bytes
		c.t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := f.WriteString("\nlast line\n"); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		c.t.Fatal(err)
	}
	out := c.path("out")
	const split = "16MiB"
	counted := c.submit(&api.JobRequest{Inputs: []string{file}, Split: split, Output: out, Program: api.Program{Command: []string{"wc", "-lc"}}})
	worded := c.submit(&api.JobRequest{
		Inputs: []string{file}, Split: split, Retries: new(0), Program: api.Program{Builtin: "wordcount"}, Set: map[string]string{"record_max": "1MiB"},
	})
	short := c.submit(&api.JobRequest{Inputs: []string{file}, Split: split, Program: api.Program{Command: []string{"tr", "-d", `\000`}}})
	job := c.done(counted)
	if job.Stages[0].Tasks < 4 {
		c.t.Errorf("%d tasks, want a split per %s", job.Stages[0].Tasks, split)
	}
	lines, size2 := 0, 0
	for line := range strings.Lines(string(sh(c.t, out, "cat part-*"))) {
		fields := strings.Fields(line)
		n, _ := strconv.Atoi(fields[0])
		b, _ := strconv.Atoi(fields[1])
		lines, size2 = lines+n, size2+b
	}
	if want := strings.Count(text, "\n") + 2; lines != want || size2 != size+len("\nlast line\n") {
		c.t.Errorf("%d lines, %d bytes, want %d and %d", lines, size2, want, size+len("\nlast line\n"))
	}
	// The line is one word, too long to be counted: bad input, with the position.
	wantText(c.t, c.fails(worded).Error, file, "exceeds")
	c.done(short)
	if got := c.result(short); got != text+"\nlast line\n" {
		c.t.Errorf("without zero bytes it is %s", brief([]byte(got)))
	}
}
