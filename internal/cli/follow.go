package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

// watchFlags are the flags of commands that wait for a job.
type watchFlags struct {
	json    bool
	quiet   bool
	several bool // jobs are waited for: only their number is shown, and how each ends
}

func (f *watchFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.json, "json", false, "progress as JSON lines: the job as in the HTTP API")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
}

// follower watches a job to its end.
type follower struct {
	app      *app
	client   *client.Client
	progress *progress
	quiet    bool
	results  resultFlags
	failures failures
	pause    pause
	dump     func() (path string, err error) // writes what the cluster in this process does; nil: it is another process
}

func (a *app) follower(c *client.Client, f watchFlags, results resultFlags) *follower {
	return &follower{app: a, client: c, progress: newProgress(a.stderr, f), quiet: f.quiet || f.json, results: results}
}

// wait returns the job when it has ended.
func (f *follower) wait(ctx context.Context, id uint64) (api.Job, error) {
	defer f.app.stderr.Status("")
	for {
		job, err := f.client.Poll(ctx, id, f.progress.every())
		if err != nil {
			return job, orInterrupted(ctx, err)
		}
		f.noteFailure(ctx, &job)
		if f.pause.isLong(time.Now(), &job) && f.progress.mode != progressJSON {
			f.explainPause(ctx, &job)
		}
		f.progress.update(time.Now(), &job)
		if job.IsEnded() {
			if f.progress.mode != progressJSON { // the last line has them
				f.app.printWarnings(&job)
			}
			return job, nil
		}
	}
}

// errWaitTimeout is the cancellation cause of a wait that takes longer than its --timeout.
var errWaitTimeout = errors.New("not ended in time")

// orInterrupted returns the cause of ctx if it is done, unless err says more about it, else err.
func orInterrupted(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return cause
	}
	return err
}

// printf prints a line unless --quiet or --json is set.
func (f *follower) printf(format string, args ...any) {
	if !f.quiet {
		f.app.stderr.Printf(format, args...)
	}
}

// exitStatus is the result of a command that has waited for a job: nil, or an exitError whose message was printed already.
func exitStatus(job *api.Job) error {
	switch job.Status {
	case api.JobDone:
		return nil
	case api.JobStopped:
		return &exitError{code: exitStopped}
	default:
		return &exitError{code: exitFailed}
	}
}

// taskFailure describes a dead task: its input, its attempts and its last error.
func taskFailure(t *api.Task) string {
	text := t.Name
	if input := inputText(t); input != "" {
		text += " (" + input + ")"
	}
	text += ", " + plural(uint64(t.Attempts), "attempt")
	if len(t.Failures) == 0 {
		return text
	}
	last := t.Failures[len(t.Failures)-1]
	message := strings.TrimRight(last.Message, "\n")
	return text + ": " + strings.ReplaceAll(printableLines(message), "\n", "\n    ")
}

// inputText describes the input of a task; empty: it reads none.
func inputText(t *api.Task) string {
	const inputMax = 120
	text, several := t.Input, len(t.Inputs) > 1
	if several {
		text = t.Inputs[0]
	}
	text = printable(text)
	if runes := []rune(text); len(runes) > inputMax {
		text = string(runes[:inputMax]) + "…"
	}
	if several {
		text += fmt.Sprintf(" and %d more", len(t.Inputs)-1)
	}
	if t.Offset > 0 {
		text += " from byte " + strconv.FormatUint(t.Offset, 10)
	}
	return text
}

// printableLines is printable applied to each line.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(strings.TrimSuffix(lines[i], "\r"))
	}
	return strings.Join(lines, "\n")
}

// copyResult copies the result of a job to w.
func copyResult(ctx context.Context, c *client.Client, id uint64, w io.Writer) error {
	body, err := c.Result(ctx, id)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	defer body.Close() //nolint:errcheck // only read
	if _, err := io.Copy(w, body); err != nil {
		return orInterrupted(ctx, fmt.Errorf("result of job %d: %w", id, err))
	}
	return nil
}

// summary prints what a job with an --output has produced, and where.
func (f *follower) summary(ctx context.Context, job *api.Job) {
	if f.quiet {
		return
	}
	took := ""
	if job.Ended != nil {
		took = " in " + durationText(job.Ended.Sub(job.Created))
	}
	f.topLines(ctx, job)
	f.app.stderr.Printf("%s%s: %s, %s, in %s", f.app.stderr.Color(green, fmt.Sprintf("job %d done", job.ID)), took, plural(job.PartStage().Done, "part"), bytesText(job.OutputBytes), job.Output)
}

// topShown is how many lines of a collected result are shown.
const topShown = 10

// resultBytesRead bounds how much of a result is read to find its top lines.
const resultBytesRead = 64 << 20

// topLines prints the lines with the largest numbers of a result that consists of KEY<TAB>NUMBER lines: a collected one, or the parts of a built-in job's
// last stage.
func (f *follower) topLines(ctx context.Context, job *api.Job) {
	all := job.Output
	switch {
	case slices.ContainsFunc(job.Stages, func(s api.Stage) bool { return s.Role == api.RoleCollect }):
		all += "/_RESULT"
	case job.Program.Builtin == "" || !slices.ContainsFunc(job.Stages, func(s api.Stage) bool { return s.Role == api.RoleReduce }):
		return
	}
	body, err := f.client.Result(ctx, job.ID)
	if err != nil {
		return // the summary names the file
	}
	defer body.Close() //nolint:errcheck // only read
	top, lines, err := largest(io.LimitReader(body, resultBytesRead), topShown)
	if err != nil || len(top) == 0 {
		return
	}
	width := len(countText(top[0].n))
	for _, line := range top {
		f.app.stderr.Printf("  %*s  %s", width, countText(line.n), printable(line.key))
	}
	if rest := lines - len(top); rest > 0 {
		f.app.stderr.Printf("  %*s  and %s more; all of them: %s", width, "", countText(uint64(rest)), all)
	}
}

// countLine is a line KEY<TAB>NUMBER.
type countLine struct {
	key string
	n   uint64
}

var errNotCounts = errors.New("not KEY<TAB>NUMBER lines")

// largest returns the n lines with the largest numbers, and the number of lines.
func largest(r io.Reader, n int) ([]countLine, int, error) {
	var top []countLine
	all := 0
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return top, all, nil
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, 0, err
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		tab := bytes.LastIndexByte(line, '\t')
		if tab < 0 {
			return nil, 0, errNotCounts
		}
		count, err := strconv.ParseUint(string(line[tab+1:]), 10, 64)
		if err != nil {
			return nil, 0, errNotCounts
		}
		all++
		if len(top) == n && count <= top[n-1].n {
			continue
		}
		at, _ := slices.BinarySearchFunc(top, count, func(l countLine, n uint64) int {
			if l.n >= n {
				return -1
			}
			return 1
		})
		top = slices.Insert(top, at, countLine{key: string(line[:tab]), n: count})
		top = top[:min(len(top), n)]
	}
}
