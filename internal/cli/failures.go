package cli

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bridgefour/bridgefour/api"
)

const (
	// causesShown is how many causes of failures are shown at the end of a job.
	causesShown = 5
	// causesMax is how many causes are told apart.
	causesMax = 1000
	// failureLinesShown is how much of the standard output of a failed attempt is shown.
	failureLinesShown = 10
)

// failures are what was said about the failed tasks of a job.
type failures struct {
	shown map[string]bool // tasks
	noted bool            // the first failure was printed
}

// noteFailure prints the first task that has failed, when it has. In a search they are of no interest unless all have.
func (f *follower) noteFailure(ctx context.Context, job *api.Job) {
	if f.failures.noted || f.progress.mode == progressJSON || job.Status == api.JobStopped || job.FirstSuccess {
		return
	}
	if !slices.ContainsFunc(job.Stages, func(s api.Stage) bool { return s.Dead > 0 }) {
		return
	}
	for task, err := range f.client.Tasks(ctx, job.ID, api.TaskQuery{Status: api.TaskDead, Limit: 1}) {
		if err == nil {
			f.failures.noted = true
			f.showFailure(ctx, job.ID, &task, f.app.stderr.Color(red, "failed:")+" ", "")
		}
		return // on an error, the next time
	}
}

// showFailure prints a failed task, with the end of what its last attempt wrote.
func (f *follower) showFailure(ctx context.Context, id uint64, t *api.Task, begin, indent string) {
	if f.failures.shown == nil {
		f.failures.shown = map[string]bool{}
	}
	f.failures.shown[t.Name] = true
	if whole, err := f.client.Task(ctx, id, t.Stage, t.Index); err == nil { // with its standard output
		t = &whole
	}
	text := taskFailure(t)
	if n := len(t.Failures); n > 0 && t.Failures[n-1].Stdout != "" {
		text += "\n  its standard output:\n    " + strings.ReplaceAll(printableLines(lastLines(t.Failures[n-1].Stdout, failureLinesShown)), "\n", "\n    ")
	}
	f.app.stderr.Printf("%s%s%s", indent, begin, strings.ReplaceAll(text, "\n", "\n"+indent))
}

// lastLines returns the last n lines of a text, without the last newline.
func lastLines(text string, n int) string {
	text = strings.TrimRight(text, "\n")
	at := len(text)
	for ; n > 0 && at >= 0; n-- {
		at = strings.LastIndexByte(text[:at], '\n')
	}
	return text[at+1:]
}

// printFailure prints why a job did not succeed: how many tasks failed, by cause. more is a hint that is printed last.
func (f *follower) printFailure(ctx context.Context, job *api.Job, more string) {
	if f.progress.mode == progressJSON { // the last line has everything
		return
	}
	if job.Status == api.JobStopped {
		f.app.stderr.Printf("job %d was stopped", job.ID)
		f.printPartial(job)
		return
	}
	begin, text := fmt.Sprintf("job %d failed", job.ID), failedTasks(job)
	if text == "" {
		f.app.stderr.Printf("%s: %s", begin, job.Error)
	} else {
		f.app.stderr.Printf("%s: %s", f.app.stderr.Color(red, begin), text)
		f.printCauses(ctx, job.ID)
	}
	f.printPartial(job)
	if f.results.concat != "" && printsTasks(job) {
		f.app.stderr.Printf("the outputs of the tasks that are done are in %s", printable(f.results.concat+concatPartial))
	}
	if more != "" {
		f.app.stderr.Printf("%s", more)
	}
}

// failedTasks says how many tasks of a job have failed, of all that api.Job.TaskCounts counts, in which stages if it has several, and how many have not run to the
// end because the job was stopped; empty: none has failed.
func failedTasks(job *api.Job) string {
	tasks, done, dead := job.TaskCounts()
	var stages []string
	ends, stopped := uint64(0), false // ends are the tasks that have failed when all others were done
	for i := range job.Stages {
		s := &job.Stages[i]
		if s.Dead == 0 {
			continue
		}
		stages, stopped = append(stages, stageText(job, s)), stopped || s.Open > 0
		if s.Role != api.RoleMap && s.Role != api.RoleReduce {
			ends += s.Dead
		}
	}
	switch {
	case stages == nil:
		return ""
	case dead == 0:
		return plural(ends, "task") + ", in " + strings.Join(stages, ", ")
	}
	text := countText(dead) + " of " + plural(tasks, "task")
	if first := &job.Stages[0]; stageText(job, first) != first.Name { // there are several
		text += ", in " + strings.Join(stages, ", ")
	}
	if stopped {
		by := "by its program"
		if job.MaxFails != "" && !strings.HasPrefix(job.Error, "stopped "+by) {
			by = "then (--max-fails " + job.MaxFails + ")"
		}
		text += fmt.Sprintf("; it was stopped %s, %s not run to the end", by, countText(tasks-done-dead))
	}
	return text
}

// printPartial says where the parts are that a job without success has made.
func (f *follower) printPartial(job *api.Job) {
	switch stage := job.PartStage(); {
	case job.Partial:
		f.app.stderr.Printf("%s of %s, %s, in %s; its _PARTIAL lists them", countText(stage.Done), plural(stage.Tasks, "part"), bytesText(job.OutputBytes),
			printable(job.Output))
	case job.Status == api.JobFailed && !job.Spool && stage.Done > 0:
		f.app.stderr.Printf("%s of %s kept for a retry, but not published: that takes --keep-partial", countText(stage.Done),
			plural(stage.Tasks, "part"))
	}
}

// printCauses prints the causes of the failed tasks, the most frequent first, each with one of its tasks.
func (f *follower) printCauses(ctx context.Context, id uint64) {
	c := causes{byKey: map[string]*cause{}}
	for task, err := range f.client.Tasks(ctx, id, api.TaskQuery{Status: api.TaskDead, Limit: api.TaskLimitMax}) {
		if err != nil {
			f.app.stderr.Printf("  its failed tasks could not be listed: %v", err)
			return
		}
		c.add(&task)
	}
	list := c.sorted()
	if len(list) == 1 && list[0].tasks == 1 && f.failures.shown[list[0].first.Name] {
		return // all was said
	}
	for i, cause := range list {
		if i == causesShown {
			f.app.stderr.Printf("  and %s", plural(uint64(len(list)-i), "other cause"))
			return
		}
		f.app.stderr.Printf("  %s: %s", plural(cause.tasks, "task"), cause.text)
		if cause.first.Name != "" && !f.failures.shown[cause.first.Name] {
			f.showFailure(ctx, id, &cause.first, "", "    ")
		}
	}
}

// cause is a cause of failures.
type cause struct {
	text  string
	tasks uint64
	first api.Task // of which the failure is known
}

// causes groups failed tasks by cause.
type causes struct {
	byKey map[string]*cause
	order []*cause
}

func (c *causes) add(t *api.Task) {
	text, key := "not kept: only the first failures of a job are", ""
	if n := len(t.Failures); n > 0 {
		text = causeText(t.Failures[n-1].Message)
		key = causeKey(text)
	}
	if len(c.order) == causesMax && c.byKey[key] == nil {
		text, key = "other causes", " "
	}
	known := c.byKey[key]
	if known == nil {
		known = &cause{text: text}
		if len(t.Failures) > 0 {
			known.first = *t
		}
		c.byKey[key] = known
		c.order = append(c.order, known)
	}
	known.tasks++
}

// sorted returns the causes, the most frequent first.
func (c *causes) sorted() []*cause {
	return slices.SortedStableFunc(slices.Values(c.order), func(a, b *cause) int { return cmp.Compare(b.tasks, a.tasks) })
}

// causeText is the line of a failure's message that says most: the last one of what the attempt wrote, or how it ended.
func causeText(message string) string {
	const textMax = 160
	message = strings.TrimRight(message, "\n\t ")
	text := printable(strings.TrimSpace(message[strings.LastIndexByte(message, '\n')+1:]))
	if utf8.RuneCountInString(text) > textMax {
		text = string([]rune(text)[:textMax]) + "…"
	}
	return text
}

// varying matches what differs between failures of one cause: paths, and words with a digit.
var varying = regexp.MustCompile(`[^\s'"(),:=]*/[^\s'"(),:]*|[\w.-]*[0-9][\w.-]*`)

// causeKey is what failures of one cause have in common.
func causeKey(text string) string {
	if strings.HasPrefix(text, "exit status ") {
		return text
	}
	return varying.ReplaceAllString(text, "…")
}
