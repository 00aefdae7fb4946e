package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/server"
)

// runJob is the number of the job of an embedded run.
const runJob = 1

// viewCommand lets a command about a job read an embedded run.
func (a *app) viewCommand(cmd *cobra.Command) *cobra.Command {
	id := ""
	cmd.Flags().StringVar(&id, "run", "", "read the embedded run with this `id`, or last, instead of a job of a cluster; the job's number need not be given")
	completeFlag(cmd, "run", a.completeRuns)
	check, run := cmd.Args, cmd.RunE
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("run") && len(args) == 0 {
			return nil
		}
		return check(cmd, args)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if id == "" {
			return run(cmd, args)
		}
		if a.typed["cluster"] {
			return usagef(cmd, "--run is about a run of this user, and --cluster about a job of a cluster: remove one")
		}
		if f := cmd.Flags().Lookup("follow"); f != nil && f.Changed {
			return usagef(cmd, "--run reads a run as it is now; remove --follow")
		}
		v, err := a.openView(cmd.Context(), id, cmd.Name() == "logs")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.close()) }()
		a.view = v
		if len(args) == 0 {
			args = []string{fmt.Sprint(runJob)}
		}
		return run(cmd, args)
	}
	return cmd
}

// runView is a leader over a copy of the log of an embedded run: reading changes nothing, and works while the run goes on.
type runView struct {
	run    runState
	client *client.Client
	dir    string // of the copy
	end    context.CancelCauseFunc
	ended  <-chan error
}

// openView opens a run for reading. With logs, its workers come too, which have them.
func (a *app) openView(ctx context.Context, id string, logs bool) (_ *runView, err error) {
	d, err := a.findRun(id)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bridgefour-run-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := replica.Copy(d.file(logFolder), filepath.Join(dir, logFolder)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("run %s has no log yet, or no longer: %w", d.info.ID, err)
	} else if err != nil {
		return nil, err
	}
	workers := 0
	if logs {
		if workers, err = d.linkWorkers(dir); err != nil {
			return nil, err
		}
	}
	cluster, err := server.OpenEmbedded(ctx, server.EmbeddedConfig{
		Jobs: a.jobs, DataDir: dir, Idle: true, Workers: workers, Slots: 1, Version: a.versionText(), Logger: slog.New(slog.DiscardHandler), DrainGrace: runGrace,
	})
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", d.info.ID, err)
	}
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- cluster.Run(life) }()
	v := &runView{dir: dir, end: end, ended: ended}
	if v.client, err = cluster.Client(client.Options{}); err == nil {
		_, err = v.client.WithPatience(viewPatience).Raw(ctx, "/readyz")
	}
	if err == nil {
		ready, cancel := context.WithTimeout(ctx, viewPatience)
		err = cluster.AwaitWorkers(ready)
		cancel()
	}
	if err == nil {
		v.run, err = stateOfRun(d)
	}
	if err != nil {
		return nil, errors.Join(orInterrupted(ctx, err), v.close())
	}
	if v.run.Status == runGoesOn {
		a.stderr.Printf("run %s goes on; this is what its log has now: tasks that run count as open", d.info.ID)
	}
	return v, nil
}

// explain replaces what is only true of a job of a cluster.
func (v *runView) explain(e *api.Explanation) {
	e.Advice = nil
	if v.run.Status != runGoesOn {
		e.Advice = []string{v.run.continues() + " run --resume " + v.run.ID + " runs only what is not done"}
	}
	switch v.run.Status {
	case runInterrupted:
		e.Reasons = append(e.Reasons[:min(1, len(e.Reasons))], "no process runs it")
	case runGoesOn:
		e.Reasons = append(e.Reasons[:min(1, len(e.Reasons))], "it goes on in another process, which alone knows what waits for what")
	}
}

// viewPatience is the time in which a leader reads the log of a run.
const viewPatience = time.Minute

// linkWorkers makes data directories of the run's workers in dir: their identities, and links to their logs.
func (d *runDir) linkWorkers(dir string) (int, error) {
	for n := 0; ; n++ {
		name := fmt.Sprintf("worker-%d", n+1)
		from, to := d.file(name), filepath.Join(dir, name)
		identity, err := os.ReadFile(filepath.Join(from, "identity"))
		if errors.Is(err, fs.ErrNotExist) {
			return n, nil
		}
		if err == nil {
			err = os.Mkdir(to, 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, "identity"), identity, 0o600)
		}
		if err == nil && exists(filepath.Join(from, "logs")) {
			err = os.Symlink(filepath.Join(from, "logs"), filepath.Join(to, "logs"))
		}
		if err != nil {
			return 0, fmt.Errorf("logs of run %s: %w", d.info.ID, err)
		}
	}
}

func (v *runView) close() error {
	v.end(errRunEnds)
	return errors.Join(<-v.ended, os.RemoveAll(v.dir))
}
