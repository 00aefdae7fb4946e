package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/jobs"
)

// resultFlags are the flags of commands that print the outputs of tasks.
type resultFlags struct {
	unordered bool
	tag       bool
	stderr    bool
	joblog    string
	concat    string
	header    int    // lines that each output begins with, of which concat gets those of the first only: see setHeader
	begun     *place // where an earlier run has begun to print; nil: there is none, or not in a file
}

func (f *resultFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.unordered, "unordered", false, "print the output of each task when it ends, not in the order of the tasks")
	flags.BoolVar(&f.tag, "tag", false, "begin each line of output with what its task reads (line, number or file) and a tab")
}

// addConcat adds the flag of a command whose job ends with it.
func (f *resultFlags) addConcat(flags *pflag.FlagSet) {
	flags.StringVar(&f.concat, "concat", "", "write the outputs to `file`, one after another in task order; it is there when the job is done. With --header N, only the "+
		"first output of a command without --reduce keeps its first N lines, also of a job without --input")
}

// setHeader sets how many lines all outputs but the first lose in the file of --concat, if --header of their job is n. Splits have the header, so the
// outputs of a command that reads them do. Built-in jobs and jobs of the SDK skip it, and outputs of --reduce are of keys.
func (f *resultFlags) setHeader(r *api.JobRequest, n int) {
	f.header = 0
	if outputsHaveHeader(r) {
		f.header = n
	}
}

func outputsHaveHeader(r *api.JobRequest) bool {
	return len(r.Program.Command) > 0 && r.Program.Reduce == ""
}

// addLive adds the flags of commands that wait for a job.
func (f *resultFlags) addLive(flags *pflag.FlagSet) {
	flags.BoolVar(&f.stderr, "show-stderr", false, "print what tasks write to standard error as it comes; with --tag, each line begins with its task")
	flags.StringVar(&f.joblog, "joblog", "", "write a table of the tasks to `file` when the job has ended: tab-separated, with the columns of GNU parallel's")
}

// check refuses flags that do not fit a job, before it is submitted; nil: one that was before. It creates the file of --joblog.
func (f *resultFlags) check(a *app, cmd *cobra.Command, r *api.JobRequest) error {
	output := ""
	if r != nil {
		output = r.Output
	}
	if err := f.checkTag(a, cmd, r); err != nil {
		return err
	}
	if f.concat != "" && (f.unordered || f.tag && !f.stderr) {
		return usagef(cmd, "--concat writes the outputs as they are, in task order; remove --unordered and --tag")
	}
	if output != "" && (f.unordered || f.tag && !f.stderr) {
		return usagef(cmd, "--unordered and --tag are about results on standard output; with --output they go to files")
	}
	if f.concat != "" {
		if info, err := os.Lstat(f.concat); err == nil && !info.Mode().IsRegular() {
			return usagef(cmd, "--concat %s would be replaced, and is no regular file; without --concat, the outputs go to standard output", f.concat)
		}
		err := os.WriteFile(f.concat+concatPartial, nil, 0o666) //nolint:gosec // as any output of a command
		if err == nil {
			err = os.Remove(f.concat + concatPartial) // until there is an output
		}
		if err != nil {
			return usagef(cmd, "--concat: %v", err)
		}
	}
	if f.joblog != "" {
		if err := os.WriteFile(f.joblog, nil, 0o666); err != nil { //nolint:gosec // as any output of a command
			return usagef(cmd, "--joblog: %v", err)
		}
	}
	return nil
}

// checkTag refuses --tag for a job whose outputs are not of one input each. Its files share no tasks.
func (f *resultFlags) checkTag(a *app, cmd *cobra.Command, r *api.JobRequest) error {
	switch {
	case r == nil || !f.tag:
		return nil
	case r.Output == "" && f.concat == "" && a.reduces(r):
		return usagef(cmd, "%s", tagOfReduce)
	case f.stderr || len(r.Inputs) == 0 || r.Program.Builtin == "":
		return nil
	case r.Pack != "" && r.Pack != "none":
		return usagef(cmd, "--tag says which file a line is of, and the files of --pack share their output; remove one of both")
	}
	r.Pack = "none"
	return nil
}

const tagOfReduce = "--tag says what a task reads, and the outputs of a reduce are partitions of the keys, which have no input to be named by"

// reduces reports whether the last stage of a job reduces. If its settings are wrong, the leader says it.
func (a *app) reduces(r *api.JobRequest) bool {
	if r.Program.Reduce != "" {
		return true
	}
	job, _ := jobs.Find(a.jobs, r.Program.Builtin)
	staged, ok := job.(stage.Job)
	if !ok {
		return false
	}
	p, err := staged.Plan(r.Set)
	return err == nil && len(p.Stages()) > 1
}

// checkTag refuses --tag for the result of a job whose last stage reduces.
func (f *follower) checkTag(job *api.Job) error {
	if f.results.tag && printsTasks(job) && job.PartStage().Role == api.RoleReduce {
		return &exitError{code: exitUsage, err: errors.New(tagOfReduce)}
	}
	return nil
}

// printsTasks reports whether the result of a job is the outputs of its tasks, so that it can be printed while the job runs.
func printsTasks(job *api.Job) bool {
	return job.Spool && !slices.ContainsFunc(job.Stages, func(s api.Stage) bool { return s.Role == api.RoleCollect })
}

// watch waits for the end of a job. Meanwhile it prints the outputs of its tasks, if outputs is set, and their logs, if --show-stderr is. An
// error of standard output ends it: syscall.EPIPE, if the reader has left.
func (f *follower) watch(ctx context.Context, id uint64, outputs bool) (api.Job, error) {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var printers, watching sync.WaitGroup
	var printed, logged error
	switch {
	case outputs && f.results.concat != "":
		printers.Go(func() {
			if printed = f.writeConcat(ctx, id); printed != nil {
				cancel(printed)
			}
		})
	case outputs:
		printers.Go(func() {
			printed = f.printOutputs(ctx, id)
			if _, ok := errors.AsType[*outputError](printed); ok {
				cancel(printed)
			}
		})
		watching.Go(func() {
			if awaitReaderLeft(ctx, f.app.stdout) {
				cancel(&outputError{syscall.EPIPE})
			}
		})
	}
	if f.results.stderr {
		printers.Go(func() { logged = f.printLogs(ctx, id) })
	}
	ended, err := f.wait(ctx, id)
	if err != nil {
		cancel(err)
	}
	printers.Wait()
	cancel(nil)
	watching.Wait()
	if _, ok := errors.AsType[*replacedError](printed); ok && ended.Status != api.JobDone {
		printed = nil // that it has failed says more
	}
	return ended, cmp.Or(err, printed, logged, f.writeJoblog(outer, id))
}

// joblogTimeout bounds the time for a table after an interruption.
const joblogTimeout = 10 * time.Second

// writeJoblog writes the file of --joblog, also if ctx was interrupted.
func (f *follower) writeJoblog(ctx context.Context, id uint64) (err error) {
	if f.results.joblog == "" {
		return nil
	}
	if ctx.Err() != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), joblogTimeout)
		defer cancel()
		ctx = late
	}
	body, err := f.client.Joblog(ctx, id)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read
	return writeFile(f.results.joblog, func(w io.Writer) error {
		_, err := io.Copy(w, body)
		return err
	})
}

// printLogs prints the logs of all tasks until the job has ended.
func (f *follower) printLogs(ctx context.Context, id uint64) error {
	out := &logPrinter{w: f.app.stderr, plain: !f.results.tag, prefix: true, open: map[string][]byte{}}
	for record, err := range f.client.Logs(ctx, api.LogQuery{Job: id, Follow: true}) {
		switch {
		case err != nil:
			return orInterrupted(ctx, err)
		case record.Missing != "":
			f.app.stderr.Printf("bridgefour: logs missing: %s", printableLines(record.Missing))
		case !record.Output && !record.Kept:
			if err := out.add(&record); err != nil {
				return err
			}
		}
	}
	return out.end()
}

// awaitReaderLeft waits until the reader of a pipe has closed it, which it reports, or ctx is done.
func awaitReaderLeft(ctx context.Context, w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	if info, err := file.Stat(); err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 {
		return false
	}
	wake, done, err := os.Pipe()
	if err != nil {
		return false // a write will tell
	}
	defer wake.Close() //nolint:errcheck // nothing was written
	closeDone := func() { _ = done.Close() }
	unregister := context.AfterFunc(ctx, closeDone)
	defer func() {
		if unregister() {
			closeDone()
		}
	}()
	// No event of the reader's pipe is requested, so only POLLERR and POLLHUP are reported.
	fds := []unix.PollFd{{Fd: int32(file.Fd())}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}} //nolint:gosec // file descriptors
	for {
		if _, err := unix.Poll(fds, -1); !errors.Is(err, unix.EINTR) {
			return err == nil && fds[0].Revents != 0
		}
	}
}

// printEnded prints the result of a job that has ended, or that is followed to its end.
func (f *follower) printEnded(ctx context.Context, id uint64, follow bool) error {
	job, err := f.client.Job(ctx, id)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	if err := f.checkTag(&job); err != nil {
		return err
	}
	if follow && !job.IsEnded() {
		job, err = f.watch(ctx, id, printsTasks(&job))
	} else if job.IsEnded() && printsTasks(&job) {
		err = f.printOutputs(ctx, id)
	}
	switch {
	case err != nil:
		return err
	case job.Status == api.JobFailed:
		return &exitError{code: exitFailed, err: fmt.Errorf("job %d failed: %s", id, job.Error)}
	case job.Status == api.JobStopped:
		return &exitError{code: exitStopped, err: fmt.Errorf("job %d was stopped: its results are gone", id)}
	case !job.IsEnded():
		return &exitError{code: exitUsage, err: fmt.Errorf("job %d is %s and has no result yet: 'bridgefour result %[1]d -f' prints it as it comes", id, job.Status)}
	case printsTasks(&job):
		return nil
	}
	return copyResult(ctx, f.client, id, f.app.stdout)
}

// printStage prints what a stage of a job has written, or one of its tasks.
func (f *follower) printStage(ctx context.Context, s subject, oneTask bool) error {
	job, err := f.client.Job(ctx, s.job)
	if err != nil {
		return err
	}
	parts := job.PartStage()
	i := slices.IndexFunc(job.Stages, func(stage api.Stage) bool { return stage.Name == s.stage })
	switch {
	case s.stage == "" || s.stage == parts.Name:
		s.stage = parts.Name
	case i >= 0 && job.Stages[i].Role == api.RoleCollect && !oneTask:
		return copyResult(ctx, f.client, s.job, f.app.stdout)
	default:
		return &exitError{code: exitUsage, err: fmt.Errorf("job %d has no results of a stage %q: its tasks' are of %q", s.job, s.stage, parts.Name)}
	}
	if !oneTask {
		if err := f.checkTag(&job); err != nil {
			return err
		}
		return f.printOutputs(ctx, s.job)
	}
	task, err := f.client.Task(ctx, s.job, s.stage, s.index)
	switch {
	case err != nil:
		return err
	case task.Status != api.TaskDone:
		return &exitError{code: exitFailed, err: fmt.Errorf("task %s is %s, and has no output", task.Name, task.Status)}
	case task.Size == 0:
		return nil
	}
	for part, err := range f.client.Parts(ctx, api.PartQuery{Job: s.job, Task: s.index}) {
		if err != nil {
			return err
		}
		if part.Task != s.index {
			break
		}
		if _, err := f.app.stdout.Write(part.Text); err != nil {
			return &outputError{err}
		}
		if part.Offset+uint64(len(part.Text)) >= task.Size {
			break
		}
	}
	return nil
}

// outputError is an error of standard output.
type outputError struct{ err error }

func (e *outputError) Error() string { return "write to standard output: " + e.err.Error() }

func (e *outputError) Unwrap() error { return e.err }

// printOutputs prints the outputs of the tasks of a job until it has ended.
func (f *follower) printOutputs(ctx context.Context, id uint64) error {
	printed := printedSince(f.app.stdout, f.results.begun)
	if printed == nil {
		return f.copyOutputs(ctx, id, &partPrinter{w: f.app.stdout, tag: f.results.tag})
	}
	defer printed.Close() //nolint:errcheck // only read
	w := &continuing{w: f.app.stdout, printed: printed}
	if err := f.copyOutputs(ctx, id, &partPrinter{w: w, tag: f.results.tag}); err != nil {
		return err
	}
	switch fits, err := w.end(); {
	case err != nil:
		return &outputError{err}
	case !fits:
		return &replacedError{job: id, what: fmt.Sprintf("the file of standard output has something else than the outputs of the job after its first %d bytes, as of tasks "+
			"that had failed or were run again, so that nothing was appended", f.results.begun.Offset+w.equal)}
	}
	return nil
}

// concatPartial is the end of the name of a file that --concat has not completed.
const concatPartial = ".partial"

// writeConcat writes the outputs of the tasks of a job to the file of --concat, under another name.
func (f *follower) writeConcat(ctx context.Context, id uint64) error {
	write := func() error {
		return writeFile(f.results.concat+concatPartial, func(w io.Writer) error {
			return f.copyOutputs(ctx, id, &partPrinter{w: w, header: f.results.header})
		})
	}
	err := write()
	if _, ok := errors.AsType[*replacedError](err); ok {
		err = write() // the job is done
	}
	return err
}

// writeFile makes a durable file of what fill writes.
func writeFile(name string, fill func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(file, 256<<10)
	if err = fill(w); err == nil {
		err = errors.Join(w.Flush(), file.Sync())
	}
	return errors.Join(err, file.Close())
}

// endConcat completes the file of --concat for a job that is done.
func (f *follower) endConcat(ctx context.Context, job *api.Job) error {
	var err error
	switch name := f.results.concat + concatPartial; {
	case printsTasks(job): // watch has written it
	case job.Spool:
		err = writeFile(name, func(w io.Writer) error { return copyResult(ctx, f.client, job.ID, w) })
	default:
		err = f.writeConcat(ctx, job.ID)
	}
	if err != nil {
		return err
	}
	return os.Rename(f.results.concat+concatPartial, f.results.concat)
}

// copyOutputs passes the outputs of the tasks of a job to p until the job has ended.
func (f *follower) copyOutputs(ctx context.Context, id uint64, p *partPrinter) error {
	q := api.PartQuery{Job: id, Unordered: f.results.unordered, Inputs: p.tag, Sums: true}
	var taken takenSums
	for part, err := range f.client.Parts(ctx, q) {
		if err != nil {
			return orInterrupted(ctx, fmt.Errorf("result of job %d: %w", id, err))
		}
		if taken.add(&part); part.Final {
			continue
		}
		if err := p.print(&part); err != nil {
			return &outputError{err}
		}
	}
	if err := p.end(); err != nil {
		return &outputError{err}
	}
	if len(taken.replaced) > 0 {
		return &replacedError{job: id, what: replacedText(taken.replaced), again: fmt.Sprintf("%s result %d", f.app.program, id)}
	}
	return nil
}

// takenSums has the sums of the outputs that were taken from a stream, and finds those that were made again since, with another content.
type takenSums struct {
	pages    map[uint64]*[takenPage]uint64 // by task/takenPage; 0: no output, or the server does not say
	replaced []uint64                      // tasks, in order
	unknown  bool                          // an output came without its sum: the server is an old one
}

const takenPage = 512 // tasks

// add takes a piece, or the sum that counts.
func (t *takenSums) add(part *api.Part) {
	if part.Sum == 0 && !part.Final {
		t.unknown = true
	}
	page := t.pages[part.Task/takenPage]
	if page == nil {
		if t.pages == nil {
			t.pages = map[uint64]*[takenPage]uint64{}
		}
		page = new([takenPage]uint64)
		t.pages[part.Task/takenPage] = page
	}
	sum := &page[part.Task%takenPage]
	if *sum == part.Sum {
		return
	}
	if *sum == 0 && !part.Final {
		*sum = part.Sum
		return
	}
	if at, found := slices.BinarySearch(t.replaced, part.Task); !found && !t.unknown {
		t.replaced = slices.Insert(t.replaced, at, part.Task)
	}
}

// replacedError says that what was printed of a done job is not its result.
type replacedError struct {
	job   uint64
	what  string
	again string // the command that prints the result
}

func (e *replacedError) Error() string {
	return fmt.Sprintf("job %d: %s; '%s' prints the whole result", e.job, e.what, e.again)
}

// replacedText says that the outputs of tasks, in order, were printed before they were made again with another content.
func replacedText(tasks []uint64) string {
	what := fmt.Sprintf("the output of task %d was", tasks[0])
	if n := len(tasks); n > 1 {
		what = fmt.Sprintf("the outputs of %d tasks, of which task %d is the first, were", n, tasks[0])
	}
	return "what was printed is of two executions: " + what + " printed, and then made again with another content, since something was lost or changed, and the program " +
		"writes something else each time"
}

// partPrinter prints outputs of tasks.
type partPrinter struct {
	w      io.Writer
	tag    bool
	header int // lines that all outputs but the first lose

	begun  bool
	drop   int    // lines of the present task that are still to be dropped
	prefix []byte // of the lines of the present task
	open   bool   // the last line has no newline yet
	buffer bytes.Buffer
}

func (p *partPrinter) print(part *api.Part) error {
	if part.Offset == 0 {
		if p.begun {
			p.drop = p.header
		}
		p.begun = true
	}
	for ; p.drop > 0 && len(part.Text) > 0; p.drop-- {
		_, rest, ended := bytes.Cut(part.Text, []byte("\n"))
		if part.Text = rest; !ended {
			return nil
		}
	}
	if !p.tag {
		_, err := p.w.Write(part.Text)
		return err
	}
	p.buffer.Reset()
	if part.Offset == 0 {
		p.endLine()
		p.prefix = append([]byte(cmp.Or(printable(part.Input), strconv.FormatUint(part.Task, 10))), '\t')
	}
	for line := range bytes.Lines(part.Text) {
		if !p.open {
			p.buffer.Write(p.prefix)
		}
		p.buffer.Write(line)
		p.open = line[len(line)-1] != '\n'
	}
	_, err := p.w.Write(p.buffer.Bytes())
	return err
}

// endLine ends a last line of a task that lacks its newline.
func (p *partPrinter) endLine() {
	if p.open {
		p.buffer.WriteByte('\n')
		p.open = false
	}
}

func (p *partPrinter) end() error {
	p.buffer.Reset()
	p.endLine()
	_, err := p.w.Write(p.buffer.Bytes())
	return err
}

// readerLeft reports whether the reader of standard output has closed it, such as head: it wants no more results.
func readerLeft(err error) bool { return errors.Is(err, syscall.EPIPE) }
