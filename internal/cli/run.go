package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

// runOptions are the flags of run that do not describe the job.
type runOptions struct {
	watch    watchFlags
	cluster  string
	workers  int
	slots    int
	resume   string
	logLevel string
}

// resumeNewest is the value of --resume without an ID.
const resumeNewest = "newest"

func (a *app) runCommand() *cobra.Command {
	var f jobFlags
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run PROGRAM",
		Short: "Start an embedded cluster, run one job, show progress, print the result, leave",
		Long: `Start an embedded cluster, run one job, show progress, print the result, leave.

PROGRAM is the name of a built-in job, or -- and a command. A command's task gets its split on standard input, or, where
an argument holds {}, the path of its input there. With --lines and --range, {} or else the last argument is the item.
What it writes to standard output is the task's part of the output.

Exit codes: 0 done, 1 the job failed, 2 wrong usage, 3 stopped, 4 cluster not reachable, 130 interrupted. A run that was
interrupted, failed, or whose process died, goes on with --resume; what is done is not run again. The state of the 20
newest such runs is kept, under $XDG_STATE_HOME/bridgefour/runs.`,
		Example: `  bridgefour run wordcount --input books/ --output counts
  bridgefour run --input 'logs/*.gz' -- sh -c 'grep -c ERROR || [ $? = 1 ]'
  bridgefour run --range 1-1000 -- ./simulate {}
  bridgefour run --lines urls.txt --retries 5 -- curl -fsS`,
		ValidArgsFunction: completeBuiltins,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.workers < 1 || o.slots < 0 || o.slots == 0 && a.typed["slots"] {
				return usagef(cmd, "--workers and --slots must be at least 1")
			}
			if o.resume != "" {
				return a.resumeRun(cmd, &o, args)
			}
			req, err := a.request(cmd, &f, args)
			if err != nil {
				return err
			}
			if o.cluster != "" {
				return a.runSubmitted(cmd, &o, req)
			}
			if err := checkBuiltin(cmd, req.Program); err != nil {
				return err
			}
			if err := checkFits(cmd, &o, req); err != nil {
				return err
			}
			runs, err := a.runsDir()
			if err != nil {
				return err
			}
			dir, err := newRunDir(runs, req, time.Now())
			if err != nil {
				return err
			}
			return a.runIn(cmd.Context(), &o, dir, req)
		},
	}
	f.add(cmd.Flags())
	o.watch.add(cmd)
	addCluster(cmd, &o.cluster, "")
	cmd.Flags().IntVar(&o.workers, "workers", 1, "workers of the embedded cluster")
	cmd.Flags().IntVar(&o.slots, "slots", 0, "slots of each worker of the embedded cluster (default: one per CPU)")
	cmd.Flags().StringVar(&o.resume, "resume", "", "go on with the embedded run `id`; without id, with the newest that no process runs")
	cmd.Flags().Lookup("resume").NoOptDefVal = resumeNewest
	addLogLevel(cmd, &o.logLevel, "error")
	return cmd
}

// checkFits refuses a job that no worker of the embedded cluster could take: none that could will ever join it, and the run
// would wait for one until it is interrupted.
func checkFits(cmd *cobra.Command, o *runOptions, req *api.JobRequest) error {
	slots := embeddedSlots(o.slots, o.workers)
	switch {
	case len(req.Labels) > 0:
		return usagef(cmd, "--label chooses among the workers of a cluster; those of the embedded one have no labels")
	case req.SlotsPerTask > slots:
		return usagef(cmd, "--slots-per-task is %d, more than the slots of a worker, %d here; --slots %d gives it enough", req.SlotsPerTask,
			slots, req.SlotsPerTask)
	}
	return nil
}

// runsDir is where the state of embedded runs is kept.
func (a *app) runsDir() (string, error) {
	state, err := a.stateDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(state, "runs"), nil
}

// runSubmitted runs a job on a cluster that is there already.
func (a *app) runSubmitted(cmd *cobra.Command, o *runOptions, req *api.JobRequest) error {
	for _, name := range []string{"workers", "slots"} {
		if a.typed[name] {
			return usagef(cmd, "--%s is for the embedded cluster; %s has its own workers", name, o.cluster)
		}
	}
	ctx := cmd.Context()
	first, err := a.connect(o.cluster, 0)
	if err != nil {
		return err
	}
	job, err := first.Submit(ctx, req, "")
	if err != nil {
		return orInterrupted(ctx, err)
	}
	a.warn(&job)
	c, err := a.connect(o.cluster, followPatience)
	if err != nil {
		return err
	}
	f := a.follower(c, o.watch)
	f.say("job %d on %s", job.ID, o.cluster)
	id := job.ID
	if job, err = f.wait(ctx, id); err != nil {
		if ctx.Err() != nil {
			a.stderr.Printf("job %d goes on; 'bridgefour wait %d' comes back to it, 'bridgefour result %d' then prints its result, "+
				"'bridgefour stop %d' stops it", id, id, id, id)
		}
		return err
	}
	if job.Status != api.JobDone {
		f.tellFailure(ctx, &job, submittedMore(&job))
		return verdict(&job)
	}
	return f.deliver(ctx, &job)
}

// deliver gives the user what a done job has made.
func (f *follower) deliver(ctx context.Context, job *api.Job) error {
	if !job.Spool {
		f.summary(ctx, job)
		return nil
	}
	return f.app.copyResult(ctx, f.client, job.ID)
}

// resumeRun goes on with an embedded run.
func (a *app) resumeRun(cmd *cobra.Command, o *runOptions, args []string) error {
	for _, name := range append(jobFlagNames(), "cluster") {
		if a.typed[name] {
			return usagef(cmd, "--resume goes on with a job as it is; --%s cannot change it", name)
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
		return usagef(cmd, "--resume goes on with a job as it is; %q cannot change it", args[0])
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
		err = checkFits(cmd, o, req)
	}
	if err != nil {
		return errors.Join(err, dir.release())
	}
	if !o.watch.quiet && !o.watch.json {
		a.stderr.Printf("going on with run %s: %s", dir.info.ID, printable(dir.info.Program))
	}
	return a.runIn(cmd.Context(), o, dir, req)
}

// runGrace stops what runs when the run ends: it is of no use any more, or will be run again by --resume. Unlike
// worker.ErrStopNow, the end of a grace lets the log take what has finished.
const runGrace = time.Millisecond

var errRunEnds = errors.New("the run ends")

// runIn runs an embedded cluster over the state in dir, and one job in it. It lets go of dir, or removes it.
func (a *app) runIn(ctx context.Context, o *runOptions, dir *runDir, req *api.JobRequest) (err error) {
	keep := true
	defer func() {
		if keep {
			err = errors.Join(err, dir.release(), pruneRuns(filepath.Dir(dir.path), runsKept))
		} else {
			err = errors.Join(err, dir.remove())
		}
	}()
	logger, err := a.logger(o.logLevel)
	if err != nil {
		return err
	}
	cluster, err := openEmbedded(ctx, embeddedConfig{
		dataDir: dir.path, listen: "127.0.0.1:0", workers: o.workers, slots: o.slots, version: a.versionText(), logger: logger,
		drainGrace: runGrace,
	})
	if err != nil {
		return err
	}
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() {
		err := cluster.run(life)
		if err != nil {
			cancel(fmt.Errorf("the embedded cluster failed: %w", err))
		}
		ended <- err
	}()
	c, err := client.New([]string{cluster.url()}, client.Options{})
	if err == nil {
		r := embeddedRun{app: a, follower: a.follower(c, o.watch), dir: dir, request: req, resumed: o.resume != ""}
		keep, err = r.run(work)
		c.Close()
	}
	end(errRunEnds)
	return errors.Join(err, failedAfter(<-ended, err))
}

// failedAfter is the error of a cluster that has ended, unless the run has told it already.
func failedAfter(clusterErr, runErr error) error {
	if runErr == nil && clusterErr != nil {
		return fmt.Errorf("the embedded cluster failed: %w", clusterErr)
	}
	return nil
}

// embeddedRun is one job in an embedded cluster.
type embeddedRun struct {
	app      *app
	follower *follower
	dir      *runDir
	request  *api.JobRequest
	resumed  bool // the log may have the job
}

// run brings the job to its end. It says whether the state is to be kept for --resume.
func (r *embeddedRun) run(ctx context.Context) (keep bool, err error) {
	job, err := r.job(ctx)
	if err != nil {
		if _, refused := errors.AsType[*api.Problem](err); refused {
			return false, err // there is no job to go on with
		}
		return true, r.interrupted(ctx, err)
	}
	if job, err = r.follower.wait(ctx, job.ID); err != nil {
		return true, r.interrupted(ctx, err)
	}
	switch job.Status {
	case api.JobDone:
		err := r.follower.deliver(ctx, &job)
		if err != nil && !errors.Is(err, syscall.EPIPE) {
			return true, r.interrupted(ctx, err)
		}
		return false, err
	case api.JobStopped:
		r.follower.tellFailure(ctx, &job, "")
		return false, verdict(&job)
	default:
		more := fmt.Sprintf("'bridgefour run --resume %s' runs the failed tasks again, and nothing that is done", r.dir.info.ID)
		if path, err := r.writeFailures(ctx, &job); err == nil && path != "" {
			more = "All failures: " + path + "\n" + more
		}
		r.follower.tellFailure(ctx, &job, more)
		return true, verdict(&job)
	}
}

// job is the job of the run: submitted now, or found in the log.
func (r *embeddedRun) job(ctx context.Context) (api.Job, error) {
	if r.resumed {
		// Until the leader has read its log, there are no jobs. The client tries until it has.
		if _, err := r.follower.client.Raw(ctx, "/readyz"); err != nil {
			return api.Job{}, err
		}
		for job, err := range r.follower.client.Jobs(ctx, api.JobQuery{Limit: 1}) {
			if err != nil || job.Status != api.JobFailed {
				return job, err
			}
			return r.follower.client.Retry(ctx, job.ID)
		}
	}
	job, err := r.follower.client.Submit(ctx, r.request, r.dir.info.ID)
	r.app.warn(&job)
	return job, err
}

// interrupted says how to go on after err.
func (r *embeddedRun) interrupted(ctx context.Context, err error) error {
	err = orInterrupted(ctx, err)
	what := "the run ended early"
	if errors.Is(err, errInterrupted) {
		what = "interrupted"
	}
	r.app.stderr.Printf("%s; what is done is kept: 'bridgefour run --resume %s' goes on", what, r.dir.info.ID)
	return err
}

// writeFailures lists all failed tasks in a file: the cluster that could be asked for them ends with this process.
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
	if n <= failuresShown {
		return "", nil
	}
	path = r.dir.file("failures.txt")
	return path, os.WriteFile(path, text.Bytes(), 0o600)
}
