package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

func (a *app) jobsCommand() *cobra.Command {
	var r readFlags
	var watch, tree bool
	q := api.JobQuery{Limit: 20}
	cmd := &cobra.Command{
		Use: "jobs", Aliases: []string{"ps"}, Short: "List jobs, newest first", Args: noArgs,
		Example: `  bridgefour jobs --status running
  bridgefour jobs --watch
  bridgefour jobs --tree`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Limit < 1 || q.Limit > api.JobLimitMax {
				return usagef(cmd, "--limit is %d: want 1 to %d", q.Limit, api.JobLimitMax)
			}
			if tree && (watch || r.json) {
				return usagef(cmd, "--tree draws the list once, for people; remove --watch and --json")
			}
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			switch {
			case watch:
				return a.watchJobs(cmd.Context(), c, q, r.json)
			case r.json:
				return a.rawJSON(cmd.Context(), c, client.JobsPath(q))
			}
			return a.printJobs(cmd.Context(), c, q, tree)
		},
	}
	r.add(cmd)
	cmd.Flags().StringSliceVar(&q.Status, "status", nil, "only jobs with these statuses: waiting, running, halted, done, failed, stopped")
	restrictFlag(cmd, "status", append(liveStatuses(), endedStatuses()...)...)
	cmd.Flags().StringVar(&q.User, "user", "", "only jobs of the user with this `name`")
	cmd.Flags().IntVar(&q.Limit, "limit", q.Limit, "maximum number")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "until interrupted: on a terminal, redraw the list; elsewhere, print the jobs that change, with --json one a line")
	cmd.Flags().BoolVar(&tree, "tree", false, "draw the order of the jobs: each below the last one that it comes after; the others are named")
	return cmd
}

func (a *app) printJobs(ctx context.Context, c *client.Client, q api.JobQuery, tree bool) error {
	jobs, more, err := listJobs(ctx, c, q)
	switch {
	case err != nil:
		return err
	case len(jobs) == 0:
		a.stderr.Printf("no jobs")
		return nil
	}
	if tree {
		err = jobTree(a.stdout, jobs)
	} else {
		err = jobTable(a.stdout, jobs, true)
	}
	if err != nil {
		return err
	}
	if more {
		a.stderr.Printf("more jobs exist; --limit shows up to %s, --status and --user select", countText(api.JobLimitMax))
	}
	return a.noteKept(ctx, c)
}

// listJobs returns the first jobs of a query, up to its limit, and whether there are more.
func listJobs(ctx context.Context, c *client.Client, q api.JobQuery) (jobs []api.Job, more bool, err error) {
	for job, err := range c.Jobs(ctx, q) {
		if err != nil {
			return nil, false, orInterrupted(ctx, err)
		}
		if len(jobs) == q.Limit {
			return jobs, true, nil
		}
		jobs = append(jobs, job)
	}
	return jobs, false, nil
}

func jobTable(w io.Writer, jobs []api.Job, titles bool) error {
	t := newTable(w)
	if titles {
		t.row("JOB", "STATUS", "NAME", "PROGRAM", "DONE", "TASKS", "FAILED", "USER", "CREATED", "WAITS FOR")
	}
	for i := range jobs {
		jobRow(t, strconv.FormatUint(jobs[i].ID, 10), &jobs[i], waitsText(&jobs[i]))
	}
	return t.flush()
}

func jobRow(t *table, number string, job *api.Job, last string) {
	tasks, done, dead := job.TaskCounts()
	t.row(number, job.Status, orDash(printable(job.Name)), orDash(printable(programText(job.Program))),
		countText(done), countText(tasks), countText(dead), orDash(printable(job.User)), ageText(job.Created, time.Now()), last)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// programText is a short form of a job's program.
func programText(p api.Program) string {
	const programMax = 40
	text := p.Text()
	if runes := []rune(text); len(runes) > programMax {
		text = string(runes[:programMax-1]) + "…"
	}
	return text
}

func (a *app) jobCommand() *cobra.Command {
	var r readFlags
	jobs := scope{}
	cmd := &cobra.Command{
		Use: "job N…", Short: "Show a job, with its stages and counts", Long: "Show jobs, with their stages and counts.\n\n" + selectorsHelp,
		Example: `  bridgefour job 7
  bridgefour job last
  bridgefour job 3-7,9 --json`,
		Args:              jobs.args,
		ValidArgsFunction: a.completeJobs(jobs),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.showJobs(cmd, args, jobs, r) },
	}
	r.add(cmd)
	cmd.AddCommand(a.keepCommand())
	return cmd
}

func (a *app) showJobs(cmd *cobra.Command, args []string, jobs scope, r readFlags) error {
	c, err := a.connect(r.cluster, 0)
	if err != nil {
		return err
	}
	ctx, shown := cmd.Context(), false
	return a.each(ctx, cmd, jobs, args, c, func(s subject) error {
		if r.json {
			return a.rawJSON(ctx, c, client.JobPath(s.job))
		}
		job, err := c.Job(ctx, s.job)
		if err != nil {
			return err
		}
		times, err := c.Times(ctx, s.job, 0)
		if err != nil && !api.IsStatus(err, http.StatusForbidden) {
			return err
		}
		if shown {
			fmt.Fprintln(a.stdout) //nolint:errcheck // reported by what follows
		}
		shown = true
		waits, err := lockReasons(ctx, c, &job)
		if err != nil {
			return err
		}
		return printJob(a.stdout, &job, &times, waits, time.Now())
	})
}

// lockReasons says which locks a job waits for, and why, as its explanation does.
func lockReasons(ctx context.Context, c *client.Client, job *api.Job) (waits []string, err error) {
	if !job.Locking {
		return nil, nil
	}
	e, err := c.Explain(ctx, job.ID, "", 0)
	for _, reason := range e.Reasons {
		if what, ok := strings.CutPrefix(reason, "it waits for "); ok && e.Lock != nil {
			waits = append(waits, what)
		}
	}
	return waits, err
}

// printJob prints a job; waits are the locks that it waits for.
func printJob(w io.Writer, job *api.Job, times *api.Times, waits []string, now time.Time) error {
	t := newTable(w)
	field := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	fields := func(name string, values []string) {
		for _, value := range values {
			field(name, printable(value))
		}
	}
	field("job", strconv.FormatUint(job.ID, 10))
	field("name", printable(job.Name))
	field("status", job.Status)
	field("error", strings.ReplaceAll(printableLines(job.Error), "\n", "\n\t"))
	field("after", afterText(job))
	fields("waits for", waits)
	fields("lock", job.Locks)
	field("user", printable(job.User))
	kind := "command"
	if job.Program.Builtin != "" {
		kind = "built-in job"
	}
	field(kind, printable(job.Program.Text()))
	field("combine", printable(job.Program.Combine))
	field("reduce", printable(job.Program.Reduce))
	fields("input", job.Inputs)
	field("records", printable(job.RecordKind))
	if job.Header > 0 {
		field("header", strconv.FormatUint(uint64(job.Header), 10))
	}
	if !job.Spool {
		field("output", printable(job.Output))
	}
	field("grace", job.Grace)
	fields("warning", job.Warnings)
	field("created", ageText(job.Created, now))
	if job.Pinned {
		field("pinned", "kept after its end, whatever the retention is")
	}
	switch {
	case job.Ended != nil:
		field("took", durationText(job.Ended.Sub(job.Created)))
	case job.Started != nil:
		field("running for", durationText(now.Sub(*job.Started)))
	}
	if job.InputBytes > 0 {
		field("read", bytesText(job.ReadBytes)+" of "+bytesText(job.InputBytes))
	}
	if times.Tasks > 0 {
		field("task times", fmt.Sprintf("%s to %s; half up to %s, 90%% up to %s, 99%% up to %s", secondsText(times.Shortest), secondsText(times.Longest),
			secondsText(times.P50), secondsText(times.P90), secondsText(times.P99)))
	}
	if times.Memory > 0 {
		field("peak memory", bytesText(times.Memory))
	}
	field("written", bytesText(job.OutputBytes)+", "+plural(job.Records, "record"))
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(w) //nolint:errcheck // reported by the table below
	if err := printCounts(w, job); err != nil {
		return err
	}
	return printStages(w, times)
}

// printCounts prints how many tasks of each stage there are, and in which states.
func printCounts(w io.Writer, job *api.Job) error {
	t := newTable(w, "STAGE", "TASKS", "OPEN", "RUNNING", "DONE", "DEAD", "RETRIED")
	for _, s := range job.Stages {
		tasks := countText(s.Tasks)
		if job.Growing && s.Role == api.RoleMap {
			tasks += "+"
		}
		t.row(s.Name, tasks, countText(s.Open), countText(s.Running), countText(s.Done), countText(s.Dead), countText(s.Retried))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, s := range job.Stages {
		if s.Second > 0 {
			fmt.Fprintf(w, "of %s, %s done by a second attempt, which has overtaken the first one\n", s.Name, plural(s.Second, "task")) //nolint:errcheck // reported by what follows, or not needed
		}
	}
	return nil
}

// printStages prints what the stages of a job have read and written, and how even that was, if there are several.
func printStages(w io.Writer, times *api.Times) error {
	if len(times.Stages) < 2 {
		return nil
	}
	fmt.Fprintln(w) //nolint:errcheck // reported by the table
	t := newTable(w, "STAGE", "READ", "WRITTEN", "RECORDS", "HALF UP TO", "LONGEST", "PARTITIONS: HALF UP TO", "LARGEST")
	for i := range times.Stages {
		s := &times.Stages[i]
		half, most := "-", "-"
		if s.ReadMostOf != "" {
			half, most = bytesText(s.ReadP50), fmt.Sprintf("%s (%s)", bytesText(s.ReadMost), s.ReadMostOf)
		}
		t.row(s.Stage, bytesText(s.Read), bytesText(s.Written), countText(s.Records), secondsText(s.P50), fmt.Sprintf("%s (%s)", secondsText(s.Longest), s.Slowest), half, most)
	}
	return t.flush()
}

// waitsText names what a job waits for: other jobs, or a lock.
func waitsText(job *api.Job) string {
	if job.Locking {
		return "locks"
	}
	return numbersText(job.Pending())
}

// numbersText lists the first ones of these jobs.
func numbersText(jobs []uint64) string {
	const shown = 4
	var list []string
	for _, id := range jobs[:min(len(jobs), shown)] {
		list = append(list, strconv.FormatUint(id, 10))
	}
	if more := len(jobs) - shown; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, " ")
}

// afterText lists the jobs that a job comes after, and those of them that it waits for.
func afterText(job *api.Job) string {
	var list []string
	for _, d := range job.After {
		text := strconv.FormatUint(d.Job, 10)
		if d.Any {
			text += ":any"
		}
		if d.Pending {
			text += " (not ended)"
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func (a *app) tasksCommand() *cobra.Command {
	var r readFlags
	slowest := 0
	q := api.TaskQuery{Limit: 1000}
	tasks := scope{tasks: true}
	cmd := &cobra.Command{
		Use: "tasks N[/STAGE/INDEX]…", Short: "List a job's tasks, or show one", Long: "List the tasks of jobs, or show tasks.\n\n" + selectorsHelp,
		Example: `  bridgefour tasks last --status dead
  bridgefour tasks 7 --slowest 10
  bridgefour tasks 7/map/3`,
		Args:              tasks.args,
		ValidArgsFunction: a.completeJobs(tasks),
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Limit < 1 || q.Limit > api.TaskLimitMax {
				return usagef(cmd, "--limit is %d: want 1 to %d", q.Limit, api.TaskLimitMax)
			}
			if cmd.Flags().Changed("slowest") && (slowest < 1 || slowest > api.SlowestMax) {
				return usagef(cmd, "--slowest is %d: want 1 to %d", slowest, api.SlowestMax)
			}
			if slowest > 0 && (q.Status != "" || q.Stage != "" || q.Cursor != "") {
				return usagef(cmd, "--slowest is about all done tasks; remove --status, --stage and --cursor")
			}
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			return a.each(ctx, cmd, tasks, args, c, func(s subject) error {
				switch {
				case s.stage != "":
					return a.showTask(ctx, c, s, r.json)
				case r.json && slowest > 0:
					return a.rawJSON(ctx, c, client.TimesPath(s.job, slowest))
				case r.json:
					return a.rawJSON(ctx, c, client.TasksPath(s.job, q))
				case slowest > 0:
					return a.printSlowest(ctx, c, s.job, slowest)
				}
				return a.printTasks(ctx, c, s.job, q)
			})
		},
	}
	r.add(cmd)
	cmd.Flags().StringVar(&q.Status, "status", "", "only tasks that are `status`: open, running, done or dead")
	restrictFlag(cmd, "status", api.TaskOpen, api.TaskRunning, api.TaskDone, api.TaskDead)
	cmd.Flags().IntVar(&slowest, "slowest", 0, "the `number` of done tasks that took longest, with their memory")
	cmd.Flags().StringVar(&q.Stage, "stage", "", "only tasks of this stage")
	cmd.Flags().IntVar(&q.Limit, "limit", q.Limit, "maximum number")
	cmd.Flags().StringVar(&q.Cursor, "cursor", "", "continue after an earlier page: the next field of its JSON")
	return cmd
}

func (a *app) printTasks(ctx context.Context, c *client.Client, job uint64, q api.TaskQuery) error {
	t := newTable(a.stdout, "TASK", "STATUS", "ATTEMPTS", "WORKER", "STARTED", "TIME", "SIZE", "RECORDS", "INPUT", "LAST ERROR")
	now, shown, more := time.Now(), 0, false
	for task, err := range c.Tasks(ctx, job, q) {
		if err != nil {
			return orInterrupted(ctx, err)
		}
		if shown == q.Limit {
			more = true
			break
		}
		shown++
		worker, started, took, last := "-", "-", "-", ""
		if task.Worker != 0 {
			worker = strconv.FormatUint(task.Worker, 10)
		}
		if task.Second != 0 {
			worker += fmt.Sprintf(", %d", task.Second)
		}
		if task.Started != nil {
			started = ageText(*task.Started, now)
		}
		if task.Seconds != nil {
			took = secondsText(*task.Seconds)
		}
		if n := len(task.Failures); n > 0 {
			first, _, _ := strings.Cut(task.Failures[n-1].Message, "\n")
			last = printable(first)
		}
		if task.Retry != nil {
			last = fmt.Sprintf("tried again in %s: %s", durationText(max(0, task.Retry.Sub(now))), last)
		}
		t.row(task.Name, task.Status, strconv.Itoa(int(task.Attempts)), worker, started, took, bytesText(task.Size), countText(task.Records),
			orDash(inputText(&task)), last)
	}
	if shown == 0 {
		a.stderr.Printf("no matching tasks")
		return nil
	}
	if err := t.flush(); err != nil {
		return err
	}
	if more {
		a.stderr.Printf("more tasks exist; --limit shows up to %s, --json has the cursor of the next page", countText(api.TaskLimitMax))
	}
	return nil
}

func (a *app) printSlowest(ctx context.Context, c *client.Client, job uint64, n int) error {
	times, err := c.Times(ctx, job, n)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	t := newTable(a.stdout, "TASK", "TIME", "MEMORY", "WORKER", "ATTEMPTS", "READ", "SIZE", "INPUT")
	for i := range times.Slowest {
		task, memory, took := &times.Slowest[i], "-", "-"
		if task.Memory > 0 {
			memory = bytesText(task.Memory)
		}
		if task.Seconds != nil {
			took = secondsText(*task.Seconds)
		}
		read := "-"
		if n := max(task.Read, task.Length); n > 0 {
			read = bytesText(n)
		}
		t.row(task.Name, took, memory, strconv.FormatUint(task.Worker, 10), strconv.Itoa(int(task.Attempts)), read, bytesText(task.Size), orDash(inputText(task)))
	}
	if len(times.Slowest) == 0 {
		a.stderr.Printf("no task is done")
		return nil
	}
	return t.flush()
}

func (a *app) showTask(ctx context.Context, c *client.Client, s subject, asJSON bool) error {
	if asJSON {
		return a.rawJSON(ctx, c, client.TaskPath(s.job, s.stage, s.index))
	}
	task, err := c.Task(ctx, s.job, s.stage, s.index)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	t := newTable(a.stdout)
	t.row("task", task.Name)
	t.row("status", task.Status)
	if input := inputText(&task); input != "" {
		t.row("input", input)
	}
	t.row("attempts", strconv.Itoa(int(task.Attempts)))
	if task.Worker != 0 {
		t.row("worker", strconv.FormatUint(task.Worker, 10))
	}
	if task.Retry != nil {
		t.row("tried again", "in "+durationText(max(0, time.Until(*task.Retry))))
	}
	if task.Started != nil {
		t.row("started", task.Started.Local().Format(time.DateTime))
	}
	if task.Seconds != nil {
		t.row("time", secondsText(*task.Seconds))
	}
	if task.Read > 0 {
		t.row("read", bytesText(task.Read)+" of its partition")
	}
	if task.Memory > 0 {
		t.row("peak memory", bytesText(task.Memory))
	}
	if task.Status == api.TaskDone {
		t.row("output", bytesText(task.Size)+", "+plural(task.Records, "record"))
	}
	if task.Part != "" {
		t.row("part", printable(task.Part))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, f := range task.Failures {
		if _, err := fmt.Fprintf(a.stdout, "\nattempt %d on worker %d: %s at %s\n%s\n", f.Attempt, f.Worker,
			strings.ReplaceAll(f.Kind, "_", " "), f.Time.Local().Format(time.DateTime),
			printableLines(strings.TrimRight(f.Message, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) resultCommand() *cobra.Command {
	var cluster string
	var results resultFlags
	var follow bool
	var stage string
	var task uint64
	jobs := scope{tasks: true}
	cmd := &cobra.Command{
		Use: "result N[/STAGE/INDEX]…", Short: "Print the result of a job, or the output of a task", Args: jobs.args, ValidArgsFunction: a.completeJobs(jobs),
		Long: `Print the result of a job that has ended, or with --follow the outputs of its tasks as they end. Those of several jobs are printed one
after another.

Of a job that failed, the outputs of the tasks that are done are printed, and the exit code is 1. The outputs of a job that was stopped are
gone; the exit code is 3.

--task I, or N/STAGE/I, prints the output of one task that is done, also while its job runs. --stage prints what a stage has written: of
a job that collects, "map" is what the tasks have written before.

` + selectorsHelp,
		Example: `  bridgefour result last
  bridgefour result 7 -f --tag
  bridgefour result 7 --task 3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if follow && (stage != "" || a.typed["task"]) {
				return usagef(cmd, "--follow prints all outputs; remove it, or --stage and --task")
			}
			c, err := a.connect(cluster, 0)
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), cmd, jobs, args, c, func(s subject) error {
				f := a.follower(c.WithPatience(followRetryFor), watchFlags{quiet: true}, results)
				oneTask := s.stage != "" || a.typed["task"]
				if s.stage == "" {
					s.stage, s.index = stage, task
				}
				if oneTask || s.stage != "" {
					return f.printStage(cmd.Context(), s, oneTask)
				}
				return f.printEnded(cmd.Context(), s.job, follow)
			})
		},
	}
	addCluster(cmd, &cluster)
	results.add(cmd.Flags())
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print outputs while the job runs, until it has ended")
	cmd.Flags().StringVar(&stage, "stage", "", "only what this stage has written")
	cmd.Flags().Uint64Var(&task, "task", 0, "only the output of the task with this `index`")
	return cmd
}

// liveStatuses are the statuses of jobs that have not ended.
func liveStatuses() []string { return []string{api.JobWaiting, api.JobRunning, api.JobHalted} }

// endedStatuses are those of jobs that have.
func endedStatuses() []string { return []string{api.JobDone, api.JobFailed, api.JobStopped} }

func (a *app) waitCommand() *cobra.Command {
	var cluster string
	var watch watchFlags
	var live resultFlags
	var timeout time.Duration
	jobs := scope{all: liveStatuses()}
	cmd := &cobra.Command{
		Use: "wait N…", Short: "Wait for a job to end; exit 0 if done, 1 if failed, 3 if stopped", Args: jobs.args, ValidArgsFunction: a.completeJobs(jobs),
		Long: `Wait until jobs have ended; "all" are those that have not ended. How each ends is printed when it does.

Exit codes: 0 done, 1 a job failed, 3 a job was stopped, 124 not ended within --timeout (as of timeout(1)).

` + selectorsHelp,
		Example: `  bridgefour wait last
  bridgefour wait 3-7 --timeout 1h
  bridgefour wait all --quiet`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout < 0 {
				return usagef(cmd, "--timeout is %v: want a positive duration", timeout)
			}
			c, err := a.connect(cluster, 0)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if timeout > 0 {
				limited, cancel := context.WithTimeoutCause(ctx, timeout, errWaitTimeout)
				defer cancel()
				ctx = limited
			}
			list, err := a.subjects(ctx, cmd, jobs, args, c)
			if err == nil && len(list) > 0 {
				_, err = c.Job(ctx, list[0].job) // an error at once if there is no such job or cluster
				err = orInterrupted(ctx, err)
			}
			switch {
			case errors.Is(err, errWaitTimeout):
				return fmt.Errorf("jobs %s: %w: the cluster has not answered", strings.Join(args, " "), err)
			case err != nil && (len(list) <= 1 || !api.IsStatus(err, http.StatusNotFound)):
				return err
			case len(list) > 1 && live.joblog != "":
				return usagef(cmd, "--joblog is the table of one job")
			}
			if err := live.check(a, cmd, nil); err != nil {
				return err
			}
			ids := make([]uint64, len(list))
			for i, s := range list {
				ids[i] = s.job
			}
			return a.follow(ctx, c, watch, live, ids...)
		},
	}
	addCluster(cmd, &cluster)
	watch.add(cmd)
	live.addLive(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this `duration`, with exit code 124 (default: never)")
	return cmd
}

// followedMax is how many jobs are waited for at a time.
const followedMax = 64

// follow waits for submitted jobs and prints how each ended when it does. The exit code is that of the worst.
func (a *app) follow(ctx context.Context, c *client.Client, watch watchFlags, live resultFlags, ids ...uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch.several = len(ids) > 1
	type end struct {
		id    uint64
		ended bool
		err   error
	}
	ends, turns := make(chan end), make(chan struct{}, followedMax)
	for _, id := range ids {
		go func() {
			turns <- struct{}{}
			ended, err := a.followOne(ctx, c, watch, live, id)
			<-turns
			ends <- end{id, ended, err}
		}()
	}
	worst, left := exitDone, slices.Clone(ids)
	for range ids {
		if watch.several && !watch.quiet && !watch.json {
			a.stderr.Status(fmt.Sprintf("%d of %d jobs have not ended", len(left), len(ids)))
		}
		switch e := <-ends; {
		case !e.ended && ctx.Err() != nil: // it goes on
		case errors.Is(e.err, client.ErrUnreachable):
			cancel(e.err)
		default:
			worst = worse(worst, a.report(e.err))
			left = slices.DeleteFunc(left, func(id uint64) bool { return id == e.id })
		}
	}
	a.stderr.Status("")
	switch {
	case len(left) > 0:
		return a.unended(context.Cause(ctx), left)
	case worst != exitDone:
		return &exitError{code: worst}
	}
	return nil
}

// unended says which jobs have not ended, when they are no longer waited for.
func (a *app) unended(cause error, ids []uint64) error {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.FormatUint(id, 10)
	}
	all, these, has, it, goesOn := strings.Join(texts, ","), "job ", "has", "it", "continues"
	if len(ids) > 1 {
		these, has, it, goesOn = "jobs ", "have", "them", "continue"
	}
	if len(ids) > namedMax {
		all = "all"
	}
	these += someOf(texts)
	switch {
	case errors.Is(cause, errWaitTimeout):
		return fmt.Errorf("%s %s %w: 'bridgefour explain %s' says why, 'bridgefour wait %[4]s' waits for %s again", these, has, cause, all, it)
	case errors.Is(cause, client.ErrUnreachable):
	default:
		a.stderr.Printf("%s %s; 'bridgefour wait %s' waits for %s again, 'bridgefour stop %[3]s' stops %s", these, goesOn, all, it, it)
	}
	return cause
}

// followOne waits for a submitted job and prints how it ended, unless that was not seen.
func (a *app) followOne(ctx context.Context, c *client.Client, watch watchFlags, live resultFlags, id uint64) (ended bool, err error) {
	f := a.follower(c.WithPatience(followRetryFor), watch, live)
	job, err := f.watch(ctx, id, false)
	if err != nil {
		return false, err
	}
	switch {
	case job.Status != api.JobDone:
		f.printFailure(ctx, &job, submittedMore(&job))
	case !job.Spool:
		f.summary(ctx, &job)
	default:
		f.printf("job %d done; 'bridgefour result %d' prints its result", id, id)
	}
	return true, exitStatus(&job)
}

// submittedMore is a hint on how to inspect a failed job of a cluster.
func submittedMore(job *api.Job) string {
	if job.Blocker != 0 {
		return fmt.Sprintf("'bridgefour explain %d' tells why, 'bridgefour retry %d' lets it run", job.Blocker, job.Blocker)
	}
	return fmt.Sprintf("'bridgefour tasks %d --status dead' lists all, 'bridgefour logs TASK' has their logs, "+
		"'bridgefour retry %d' runs them again", job.ID, job.ID)
}

func (a *app) explainCommand() *cobra.Command {
	var r readFlags
	tasks := scope{tasks: true}
	cmd := &cobra.Command{
		Use: "explain N[/STAGE/INDEX]…", Short: "Explain why a job or task is waiting, slow, halted or failed, and what would help",
		Long: "Explain why jobs or tasks are waiting, slow, halted or failed, and what would help.\n\n" + selectorsHelp,
		Example: `  bridgefour explain last
  bridgefour explain 7/map/3`,
		Args:              tasks.args,
		ValidArgsFunction: a.completeJobs(tasks),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			return a.each(ctx, cmd, tasks, args, c, func(s subject) error {
				if r.json {
					return a.rawJSON(ctx, c, client.ExplainPath(s.job, s.stage, s.index))
				}
				e, err := c.Explain(ctx, s.job, s.stage, s.index)
				if err != nil {
					return err
				}
				if a.view != nil {
					a.view.explain(&e)
				}
				var text strings.Builder
				fmt.Fprintf(&text, "%s is %s\n", e.Subject, e.Status)
				for _, reason := range e.Reasons {
					fmt.Fprintf(&text, "  because  %s\n", strings.ReplaceAll(printableLines(reason), "\n", "\n           "))
				}
				for _, advice := range e.Advice {
					fmt.Fprintf(&text, "  try      %s\n", strings.ReplaceAll(printableLines(advice), "bridgefour ", a.program+" "))
				}
				_, err = io.WriteString(a.stdout, text.String())
				return err
			})
		},
	}
	r.add(cmd)
	return cmd
}

func (a *app) stopCommand() *cobra.Command {
	return changeCommand(a, &cobra.Command{
		Use: "stop N…", Aliases: []string{"cancel"}, Short: "Stop a job",
		Long: "Stop jobs; \"all\" are those that have not ended. Their finished outputs are removed, unless they were submitted with --keep-partial.",
		Example: `  bridgefour stop 7
  bridgefour cancel all`,
	}, scope{all: liveStatuses()}, (*client.Client).Stop, jobIs("stopped"))
}

func (a *app) retryCommand() *cobra.Command {
	return changeCommand(a, &cobra.Command{
		Use: "retry N…", Short: "Run failed tasks of a job again; finished tasks are kept, unless their input has changed",
		Long: "Run failed tasks of jobs again; \"all\" are the failed jobs. Finished tasks are kept, unless their input has changed, or their output is kept on\n" +
			"the cluster and is lost or damaged there: those run again, of a job that is done too.",
		Example: `  bridgefour retry last
  bridgefour retry 3-7`,
	}, scope{all: []string{api.JobFailed}}, (*client.Client).Retry, jobIs("continues"))
}

func (a *app) forgetCommand() *cobra.Command {
	return changeCommand(a, &cobra.Command{
		Use: "rm N…", Short: "Forget a job that has ended, and the result that is kept of it",
		Long: `Forget jobs that have ended, with their logs and the results that are kept of them. What a job has published in its --output stays. One that
has not ended is refused: stop it first; so is one that 'bridgefour job keep' has pinned. "all" are the others: those that it leaves out are
named, and are no error. Of a failed job with an --output, stopping it first also removes the finished outputs that it keeps for a retry.`,
		Example: `  bridgefour rm 3-7
  bridgefour rm all`,
	}, scope{all: endedStatuses(), leaves: func(job *api.Job) string {
		switch {
		case !job.IsEnded():
			return job.Status
		case job.Pinned:
			return "pinned"
		}
		return ""
	}}, func(c *client.Client, ctx context.Context, id uint64) (api.Job, error) {
		return api.Job{ID: id}, c.Forget(ctx, id)
	}, jobIs("removed"))
}

// jobIs returns the text of a command that has changed a job.
func jobIs(what string) func(api.Job) string {
	return func(job api.Job) string { return fmt.Sprintf("job %d %s", job.ID, what) }
}

// changeCommand lets cmd change the jobs that its arguments name, and print their new state, or text.
func changeCommand(a *app, cmd *cobra.Command, jobs scope, change func(*client.Client, context.Context, uint64) (api.Job, error), text func(api.Job) string,
) *cobra.Command {
	var r readFlags
	cmd.Long += "\n\n" + selectorsHelp
	cmd.Args, cmd.ValidArgsFunction = jobs.args, a.completeJobs(jobs)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(r.cluster, 0)
		if err != nil {
			return err
		}
		return a.each(cmd.Context(), cmd, jobs, args, c, func(s subject) error {
			job, err := change(c, cmd.Context(), s.job)
			return a.answer(cmd.Context(), err, job, r.json, "%s\n", text(job))
		})
	}
	r.add(cmd)
	return cmd
}
