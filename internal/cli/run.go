package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/server"
)

// runOptions are the flags of run beside those of the job.
type runOptions struct {
	watch   watchFlags
	results resultFlags
	cluster string
	workers int
	slots   int
	// resources are the flags, has what they say.
	resources []string
	has       map[string][]string
	nice      int
	resume    string
	logLevel  string
}

// resumeNewest is the value of --resume without an ID.
const resumeNewest = "newest"

const runLong = `Start an embedded cluster, run one job, show progress, print the result, exit.

PROGRAM is the name of a built-in job, -- and a command, or --shell 'COMMAND LINE'. A command's task gets its split on standard input, or,
where an argument holds {}, the path of its input there. Of a list (--lines, --csv, --range, --each, or ::: a b ::: c d, ::::
FILE and :::+ behind the command), {} or else the last argument is the item.

Placeholders: {} the item or path; {1} {name} a column; {.} {/} {//} {/.} a path without its extension, its base name, its
folder, its base name without the extension (also {1/.}, {name//}); {#} the number of the task, {%} of the slot. {{}} and
{{name}} are text, and so are other braces. -I STR names another, --no-placeholders none.

What it writes to standard output is the task's part of the output. When it has ended, processes that it
started and left behind are killed (Linux; elsewhere, those of its process group).

Without --output, the outputs of the tasks go to standard output, in the order of the tasks, as soon as all tasks before have ended; those of
tasks that failed are left out. If the reader of standard output leaves (such as head), the run ends. A run that is resumed with its standard
output appended to the file of the earlier run (>>) goes on after what is there, or appends nothing and ends with 1 if that is not what the
outputs begin with. Elsewhere (>, a pipe, a terminal) it prints the outputs of all tasks, also those that an earlier run has printed.

With --input -, tasks start while standard input still comes: it is cut between records, as --split says, and read no further while many tasks
wait. Such a run cannot be resumed before all of standard input has come. It is copied as a whole first if it is not text, with --records csv,
--split none, --name-parts, --reduce or a built-in job of several stages without --partitions, or other inputs, and if the command has a {}.

Ctrl-C, SIGTERM and SIGHUP end the run and stop its tasks. Ctrl-Z stops them until the run continues; that time counts for
--timeout.

Exit codes: 0 done, 1 the job failed, 2 wrong usage, 3 stopped, 4 cluster not reachable, 6 not allowed, 130 interrupted. A run that was
interrupted, failed, or whose process died, is continued by --resume without running finished tasks again. The state of
the 20 newest such runs is kept under $XDG_STATE_HOME/bridgefour/runs, for 30 days; 'bridgefour runs' lists them, and
'bridgefour runs rm' removes them. 'bridgefour job', 'tasks', 'logs', 'result' and 'explain' read it with --run ID, or --run last.`

func (a *app) runCommand() *cobra.Command {
	var f jobFlags
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run PROGRAM",
		Short: "Start an embedded cluster, run one job, show progress, print the result, exit",
		Long:  runLong,
		Example: a.jobExample("run", "wordcount --input books/ --output counts") + `
  bridgefour run --input 'logs/*.gz' -- sh -c 'grep -c ERROR || [ $? = 1 ]'
  bridgefour run --range 1-1000 -- ./simulate {}
  bridgefour run --lines urls.txt --retries 5 -- curl -fsS`,
		ValidArgsFunction: a.completeBuiltins,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.workers < 1 || o.slots < 0 || o.slots == 0 && a.typed["slots"] {
				return usagef(cmd, "--workers and --slots must be at least 1")
			}
			if o.resume != "" {
				return a.resumeRun(cmd, &o, args)
			}
			req, err := a.request(cmd, &f, args)
			if err == nil {
				err = o.results.check(a, cmd, req)
			}
			if err != nil {
				return err
			}
			if f.dryRun {
				slots := 0
				if o.cluster == "" {
					slots = o.workers * server.SlotsOfWorker(o.slots, o.workers)
				}
				return a.dryRun(cmd, req, "", nil, slots)
			}
			o.results.setHeader(req, f.header)
			if o.cluster != "" {
				return a.runSubmitted(cmd, &o, &f, req)
			}
			return a.runEmbedded(cmd, &o, &f, req)
		},
	}
	f.add(cmd.Flags())
	a.completeJob(cmd)
	markSecretFile(cmd, "secret", "=@")
	a.helpBuiltins(cmd)
	o.watch.add(cmd)
	o.results.add(cmd.Flags())
	o.results.addLive(cmd.Flags())
	o.results.addConcat(cmd.Flags())
	addCluster(cmd, &o.cluster)
	cmd.Flags().IntVar(&o.workers, "workers", 1, "workers of the embedded cluster")
	cmd.Flags().IntVar(&o.slots, "slots", 0, "slots of each worker of the embedded cluster (default: one per CPU)")
	addResources(cmd.Flags(), "worker-resource", &o.resources)
	addNice(cmd, &o.nice, 0)
	cmd.Flags().StringVar(&o.resume, "resume", "", "resume the embedded run `id`; without id, the newest one that no process runs")
	cmd.Flags().Lookup("resume").NoOptDefVal = resumeNewest
	completeFlag(cmd, "resume", a.completeRuns)
	addLogLevel(cmd, &o.logLevel, "error")
	return cmd
}

// checkFits refuses a job that no worker of the embedded cluster could run: it would wait until interrupted.
func (a *app) checkFits(cmd *cobra.Command, o *runOptions, req *api.JobRequest) error {
	if err := a.runResources(cmd, o, req); err != nil {
		return err
	}
	slots := server.SlotsOfWorker(o.slots, o.workers)
	switch {
	case len(req.After) > 0:
		return usagef(cmd, "--after orders the jobs of a cluster, and an embedded run has one: name a cluster (--cluster)")
	case len(req.Locks) > 0 || a.typed["on-conflict"]:
		return usagef(cmd, "--lock and --on-conflict are about the other jobs of a cluster, and an embedded run has one: name a cluster (--cluster), or run it within 'bridgefour lock'")
	case len(req.Labels) > 0:
		return usagef(cmd, "--label selects workers of a cluster; workers of an embedded run have no labels")
	case req.SlotsPerTask > slots:
		return usagef(cmd, "--slots-per-task is %d, but a worker has %d here; use --slots %d", req.SlotsPerTask,
			slots, req.SlotsPerTask)
	}
	return nil
}

// runResources sets the resources of the workers of an embedded run. Devices are left to others unless the job needs them.
func (a *app) runResources(cmd *cobra.Command, o *runOptions, req *api.JobRequest) (err error) {
	if o.has, err = workerResources(cmd, "worker-resource", o.resources); err != nil {
		return err
	}
	if req.Resources[gpu] > 0 {
		a.addDevices(o.has, devFolder)
	}
	for name, n := range req.Resources {
		if has := (len(o.has[name]) + o.workers - 1) / o.workers; n > has {
			return usagef(cmd, "--resource %s=%d, but a worker has %d here; use --worker-resource %s=%d", name, n, has, name, n*o.workers)
		}
	}
	return nil
}

// runsDir is the folder of the state of embedded runs.
func (a *app) runsDir() (string, error) {
	state, err := a.stateDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(state, "runs"), nil
}

// runSubmitted runs a job on an existing cluster.
func (a *app) runSubmitted(cmd *cobra.Command, o *runOptions, f *jobFlags, req *api.JobRequest) error {
	for _, name := range []string{"workers", "slots", "worker-resource", "nice"} {
		if a.typed[name] {
			return usagef(cmd, "--%s applies to an embedded run only; %s has its own workers", name, o.cluster)
		}
	}
	if err := f.passAll(cmd, req); err != nil {
		return err
	}
	ctx := cmd.Context()
	c, err := a.connect(o.cluster, 0)
	if err != nil {
		return err
	}
	if err := a.resolveAfter(cmd, c, req); err != nil {
		return err
	}
	job, err := a.submit(ctx, c, req, "")
	if err != nil {
		return orInterrupted(ctx, err)
	}
	a.printWarnings(&job)
	w := a.follower(c.WithPatience(followRetryFor), o.watch, o.results)
	w.printf("job %d on %s", job.ID, o.cluster)
	id := job.ID
	if job, err = w.watch(ctx, id, printsTasks(&job)); err != nil {
		switch {
		case readerLeft(err):
			if _, err := c.Stop(ctx, id); err != nil && !api.IsStatus(err, http.StatusConflict) {
				return orInterrupted(ctx, err)
			}
		case ctx.Err() != nil:
			a.stderr.Printf("job %d continues; 'bridgefour wait %d' waits for it again, 'bridgefour result %d' then prints its result, "+
				"'bridgefour stop %d' stops it", id, id, id, id)
		}
		return err
	}
	if job.Status != api.JobDone {
		w.printFailure(ctx, &job, submittedMore(&job))
		return exitStatus(&job)
	}
	return w.printResult(ctx, &job)
}

// printResult prints the result or the summary of a done job, unless watch has printed its result.
func (f *follower) printResult(ctx context.Context, job *api.Job) error {
	if f.results.concat != "" {
		if err := f.endConcat(ctx, job); err != nil {
			return err
		}
	}
	switch {
	case !job.Spool:
		f.summary(ctx, job)
	case f.results.concat != "":
	case !printsTasks(job):
		return copyResult(ctx, f.client, job.ID, f.app.stdout)
	}
	return nil
}

// runEmbedded starts an embedded run of a request.
func (a *app) runEmbedded(cmd *cobra.Command, o *runOptions, f *jobFlags, req *api.JobRequest) error {
	if err := a.checkBuiltin(cmd, req.Program); err != nil {
		return err
	}
	if err := a.checkFits(cmd, o, req); err != nil {
		return err
	}
	runs, err := a.runsDir()
	if err != nil {
		return err
	}
	stdout, _ := placeOf(a.stdout)
	concat, joblog := o.results.concat, o.results.joblog
	for _, file := range []*string{&concat, &joblog} {
		if *file == "" {
			continue
		}
		if *file, err = filepath.Abs(*file); err != nil { // --resume may run elsewhere
			return err
		}
	}
	dir, err := newRunDir(cmd.Context(), runs, runInfo{
		Created: time.Now(), Owner: a.owner(req), Stdout: stdout, CleanEnv: !f.envAll && cmd.Flags().Changed("env-all"),
		Header: f.header, Concat: concat, Joblog: joblog,
	}, req, server.Builtins(a.jobs), a.stdin)
	if err != nil {
		return err
	}
	return a.runIn(cmd.Context(), o, dir, req)
}

// resumeRun resumes an embedded run.
func (a *app) resumeRun(cmd *cobra.Command, o *runOptions, args []string) error {
	for _, name := range append(jobFlagNames(), "cluster") {
		if a.typed[name] {
			return usagef(cmd, "--resume continues a job unchanged; remove --%s", name)
		}
	}
	id := o.resume
	if id == resumeNewest {
		id = ""
		if len(args) == 1 && cmd.ArgsLenAtDash() < 0 { // --resume ID, as the documentation has it
			id, args = args[0], nil
		}
	}
	if len(args) > 0 {
		return usagef(cmd, "--resume continues a job unchanged; unexpected argument %q", args[0])
	}
	runs, err := a.runsDir()
	if err != nil {
		return err
	}
	dir, err := openRun(runs, id)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	req, err := dir.request()
	if err == nil {
		err = a.checkOwner(dir, req)
	}
	if err == nil {
		err = a.checkFits(cmd, o, req)
	}
	if err != nil {
		return errors.Join(err, dir.release())
	}
	o.results.concat, o.results.joblog = cmp.Or(o.results.concat, dir.info.Concat), cmp.Or(o.results.joblog, dir.info.Joblog)
	if err := o.results.check(a, cmd, req); err != nil {
		return errors.Join(err, dir.release())
	}
	what := ""
	if o.results.concat != "" {
		what = "; its outputs go to " + printable(o.results.concat)
	} else if req.Output == "" {
		what = "; the outputs of all its tasks are printed"
		if printed := printedSince(a.stdout, dir.info.Stdout); printed != nil {
			_ = printed.Close() // only read
			what = "; its outputs go on after those that are in the file"
			if o.results.unordered {
				return errors.Join(usagef(cmd, "--unordered would append outputs that are in the file: remove it, or write to another file"), dir.release())
			}
		}
	}
	if !o.watch.quiet && !o.watch.json {
		a.stderr.Printf("resuming run %s: %s%s", dir.info.ID, printable(dir.info.Program), what)
	}
	return a.runIn(cmd.Context(), o, dir, req)
}

// checkOwner refuses to continue a run whose job this program does not have. One of the same name may be another one.
func (a *app) checkOwner(dir *runDir, req *api.JobRequest) error {
	name := req.Program.Builtin
	if name == "" || a.own == (dir.info.Owner != "") && slices.Contains(a.builtinNames(), name) {
		return nil
	}
	if dir.info.Owner != "" && dir.info.Owner == a.owner(req) {
		return &exitError{code: exitUsage, err: fmt.Errorf("run %s is of the job %s, which this program had: it has %s; '%s runs rm %[1]s' removes the run", dir.info.ID, name,
			strings.Join(a.builtinNames(), ", "), a.program)}
	}
	return &exitError{code: exitUsage, err: fmt.Errorf("run %s is of the job %s of another program; continue it by: %s run --resume %[1]s", dir.info.ID, name, dir.info.continues())}
}

// runGrace is the drain grace at the end of a run: running attempts are no longer needed, or are run again by --resume. Unlike
// worker.ErrStopNow, a drain still logs finished attempts.
const runGrace = time.Millisecond

var errRunEnds = errors.New("the run ends")

// runIn runs an embedded cluster and one job over the state in dir. It releases or removes dir.
func (a *app) runIn(ctx context.Context, o *runOptions, dir *runDir, req *api.JobRequest) (err error) {
	keep := true
	defer func() {
		if keep {
			err = errors.Join(err, dir.release())
		} else {
			err = errors.Join(err, dir.remove())
		}
		err = errors.Join(err, pruneRuns(filepath.Dir(dir.path), runsKept, time.Now().Add(-runsKeptFor)))
	}()
	delayCollection()
	logger, err := a.logger(o.logLevel)
	if err != nil {
		return err
	}
	var hold chan struct{}
	if o.resume != "" {
		hold = make(chan struct{})
	}
	cluster, err := server.OpenEmbedded(ctx, server.EmbeddedConfig{
		Jobs: a.jobs, Hold: hold, DataDir: dir.path, Workers: o.workers, Slots: o.slots, Resources: o.has, Nice: o.nice, EnvAll: !dir.info.CleanEnv, Version: a.versionText(), Logger: logger,
		Growing: dir.rest != nil, DrainGrace: runGrace, Reserved: plan.Reserved{What: "the state of embedded runs", Dir: filepath.Dir(dir.path)},
	})
	if err != nil {
		return err
	}
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() {
		err := cluster.Run(life)
		if err != nil {
			cancel(fmt.Errorf("the embedded cluster failed: %w", err))
		}
		ended <- err
	}()
	slow := &slowReport{out: a.stderr}
	defer slow.stop()
	// The leader is in this process: if it does not answer, the machine is busy, or its disk is slow. If it fails, work ends.
	c, err := cluster.Client(client.Options{Patience: followRetryFor, OnReconnect: slow.note})
	if err == nil {
		if o.resume != "" {
			o.results.begun = dir.info.Stdout
			o.results.setHeader(req, dir.info.Header)
		}
		f := a.follower(c, o.watch, o.results)
		f.dump = dir.dump
		r := embeddedRun{
			app: a, follower: f, cluster: cluster, dir: dir, request: req, resumed: hold,
			slots: o.workers * server.SlotsOfWorker(o.slots, o.workers), growing: dir.rest != nil,
		}
		if keep, err = r.run(work); keep {
			r.record(ctx)
		}
		c.Close()
	}
	end(errRunEnds)
	if failed := <-ended; failed != nil && err == nil { // else the run has returned it already
		err = fmt.Errorf("the embedded cluster failed: %w", failed)
	}
	return err
}

// embeddedRun is one job in an embedded cluster.
type embeddedRun struct {
	app      *app
	follower *follower
	dir      *runDir
	request  *api.JobRequest
	// resumed is closed once the files of the input were examined again: no task runs before that. Nil: a new run, with no job in its log.
	resumed chan struct{}
	cluster *server.Embedded
	slots   int
	// growing: standard input may still come, so that the job cannot be resumed.
	growing bool
}

var errInputLost = errors.New("the run ended while standard input was still coming, and the rest of that is lost: start it again without --resume")

var errNoSecrets = errors.New("the run ended before its job was in its log, and its secrets are kept nowhere else: start it again without --resume")

// run runs the job to its end. keep reports whether the state is needed for --resume.
func (r *embeddedRun) run(ctx context.Context) (keep bool, err error) {
	job, err := r.job(ctx)
	if errors.Is(err, errInputLost) {
		r.awaitEnd(ctx, job.ID)
		return false, err
	}
	if errors.Is(err, errNoSecrets) {
		return false, err
	}
	if err != nil {
		if _, refused := errors.AsType[*api.Problem](err); refused {
			return r.resumed != nil, err // unless resumed, there is no job
		}
		return true, r.interrupted(ctx, err)
	}
	if job, err = r.watch(ctx, &job); err != nil {
		if readerLeft(err) {
			return false, err // with exit code 0: it has what it wanted
		}
		return true, r.interrupted(ctx, err)
	}
	switch job.Status {
	case api.JobDone:
		err := r.follower.printResult(ctx, &job)
		if err != nil && !readerLeft(err) {
			return true, r.interrupted(ctx, err)
		}
		return false, err
	case api.JobStopped:
		r.follower.printFailure(ctx, &job, "")
		return false, exitStatus(&job)
	default:
		more := fmt.Sprintf("'%s run --resume %s' runs the tasks again that are not done", r.app.program, r.dir.info.ID)
		if job.Growing {
			more = "It cannot be resumed: standard input was still coming"
		}
		if path, err := r.writeFailures(ctx, &job); err == nil && path != "" {
			more = "All failures: " + path + "\n" + more
		}
		r.follower.printFailure(ctx, &job, more)
		return true, exitStatus(&job)
	}
}

// watch waits for the end of the job. Meanwhile it adds to its input what comes on standard input.
func (r *embeddedRun) watch(ctx context.Context, job *api.Job) (api.Job, error) {
	if r.dir.rest == nil {
		return r.follower.watch(ctx, job.ID, printsTasks(job))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var feeding sync.WaitGroup
	feeding.Go(func() {
		if err := r.dir.rest.feed(ctx, func(files []string, last bool) error { return r.grow(ctx, job.ID, files, last) }); err != nil {
			cancel(err)
		}
	})
	ended, err := r.follower.watch(ctx, job.ID, printsTasks(job))
	cancel(nil)
	feeding.Wait()
	return ended, err
}

// grow adds files to the input of the job, and waits until it has few open tasks.
func (r *embeddedRun) grow(ctx context.Context, id uint64, files []string, last bool) error {
	err := r.cluster.Grow(ctx, id, files, last, r.dir.rest.ahead(r.slots))
	if api.IsStatus(err, http.StatusConflict) { // it has ended, or will, as its follower sees
		<-ctx.Done()
		return context.Cause(ctx)
	}
	r.growing = err != nil || !last
	return err
}

// endTimeout bounds the stop of a job whose run was interrupted, and the wait for its end.
const endTimeout = 10 * time.Second

// awaitEnd waits for the end of a job that was stopped: until then its output is removed.
func (r *embeddedRun) awaitEnd(ctx context.Context, id uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	for ended := id == 0; !ended; {
		job, err := r.follower.client.Poll(ctx, id, jsonEvery)
		ended = err != nil || job.IsEnded()
	}
}

// record writes how far the job of the run is. It is only for lists of runs.
func (r *embeddedRun) record(ctx context.Context) {
	const timeout = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if job, err := r.follower.client.Job(ctx, runJob); err == nil {
		_ = r.dir.record(&job)
	}
}

// job returns the job of the run: submitted now, or found in the log.
func (r *embeddedRun) job(ctx context.Context) (api.Job, error) {
	if r.resumed != nil {
		defer close(r.resumed)
		// The leader lists no jobs until it has read its log; the client retries until then.
		if _, err := r.follower.client.Raw(ctx, "/readyz"); err != nil {
			return api.Job{}, err
		}
		for job, err := range r.follower.client.Jobs(ctx, api.JobQuery{Limit: 1}) {
			if err == nil && job.Growing {
				_, _ = r.follower.client.Stop(ctx, job.ID) // what it has written is removed; an error: it has ended
				return job, errInputLost
			}
			kept := job.Status == api.JobDone && job.Spool // its outputs, which may be lost since
			if err != nil || job.IsEnded() && job.Status != api.JobFailed && !kept {
				return job, err
			}
			retried, err := r.follower.client.Retry(ctx, job.ID)
			if (!job.IsEnded() || kept) && api.IsStatus(err, http.StatusConflict) {
				return job, nil // it goes on, or is done: no file of its input has changed, and no output was lost
			}
			return retried, err
		}
	}
	if r.resumed != nil && r.dir.info.Growing {
		return api.Job{}, errInputLost
	}
	if r.resumed != nil && r.dir.info.Secrets {
		return api.Job{}, errNoSecrets
	}
	job, err := r.app.submit(ctx, r.follower.client, r.request, r.dir.info.ID)
	r.app.printWarnings(&job)
	return job, err
}

// interrupted prints how to resume after err.
func (r *embeddedRun) interrupted(ctx context.Context, err error) error {
	err = orInterrupted(ctx, err)
	if replaced, ok := errors.AsType[*replacedError](err); ok {
		replaced.again = fmt.Sprintf("%s run --resume %s >FILE", r.app.program, r.dir.info.ID)
		return err
	}
	what := "the run ended early"
	if errors.Is(err, errInterrupted) {
		what = "interrupted"
	}
	if r.growing {
		r.app.stderr.Printf("%s while standard input was still coming: the job is stopped, and cannot be resumed", what)
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		_, _ = r.follower.client.Stop(stopping, runJob) // an error: it has ended
		r.awaitEnd(stopping, runJob)
	} else {
		r.app.stderr.Printf("%s; finished tasks are kept: '%s run --resume %s' continues", what, r.app.program, r.dir.info.ID)
	}
	return &exitError{code: exitCode(err), err: err} // without advice about clusters
}

// writeFailures writes all failed tasks to a file, since the embedded cluster ends with this process.
func (r *embeddedRun) writeFailures(ctx context.Context, job *api.Job) (path string, err error) {
	var text bytes.Buffer
	n := 0
	for task, err := range r.follower.client.Tasks(ctx, job.ID, api.TaskQuery{Status: api.TaskDead, Limit: api.TaskLimitMax}) {
		if err != nil {
			return "", err
		}
		n++
		fmt.Fprintln(&text, taskFailure(&task))
	}
	if n <= 1 {
		return "", nil
	}
	path = r.dir.file("failures.txt")
	return path, os.WriteFile(path, text.Bytes(), 0o600)
}
