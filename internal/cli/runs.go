package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/datadir"
)

func (a *app) runsCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "runs", Short: "List the embedded runs that are kept; 'runs show ID' and 'runs rm ID' show and remove one", Args: a.unknownCommand,
		Long: `List the embedded runs that are kept under $XDG_STATE_HOME/bridgefour/runs: those that go on, and those that failed or were interrupted,
which 'bridgefour run --resume ID' continues. The 20 newest are kept, for 30 days after they ended. A run that is done or was stopped
keeps nothing.

'bridgefour job', 'tasks', 'logs', 'result' and 'explain' read a run with --run ID. An ID can be shortened; 'last' is the newest one.`,
		Example: `  bridgefour runs
  bridgefour logs --run last
  bridgefour runs rm --ended`,
		RunE: func(*cobra.Command, []string) error {
			all, err := a.keptRuns()
			if err != nil {
				return err
			}
			list := make([]runState, 0, len(all))
			for _, d := range all {
				s, err := stateOfRun(d)
				if errors.Is(err, fs.ErrNotExist) {
					continue // it was removed meanwhile
				}
				if err != nil {
					return err
				}
				list = append(list, s)
			}
			if asJSON {
				return printJSON(a.stdout, list)
			}
			return a.printRuns(list)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.AddCommand(a.showRunCommand(), a.removeRunsCommand())
	return cmd
}

// runState is a run as users see it.
type runState struct {
	runInfo

	Size uint64 `json:"size"` // bytes on disk
	Path string `json:"path"`
}

// stateOfRun reads the state of a run; that of one whose process was killed is not known.
func stateOfRun(d *runDir) (runState, error) {
	s := runState{runInfo: d.info, Path: d.path}
	switch err := d.acquire(0); {
	case errors.Is(err, errRunning):
		s.Status, s.Tasks, s.Done, s.Failed = runGoesOn, 0, 0, 0
	case err != nil:
		return s, err
	default:
		if err := d.release(); err != nil {
			return s, err
		}
	}
	if s.Status == "" {
		s.Status = runInterrupted
	}
	return s, filepath.WalkDir(d.path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		info, err := e.Info()
		if err != nil {
			return ignoreGone(err)
		}
		s.Size += uint64(datadir.DiskBytes(info)) //nolint:gosec // not negative
		return nil
	})
}

// ignoreGone returns err unless it is about a file that is gone: a run that goes on removes some.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (a *app) printRuns(list []runState) error {
	if len(list) == 0 {
		a.stderr.Printf("no runs are kept")
		return nil
	}
	t, now := newTable(a.stdout, "RUN", "CREATED", "STATUS", "DONE", "TASKS", "FAILED", "SIZE", "COMMAND"), time.Now()
	for _, s := range list {
		done, tasks, failed := "-", "-", "-"
		if s.Tasks > 0 {
			done, tasks, failed = countText(s.Done), countText(s.Tasks), countText(s.Failed)
		}
		t.row(s.ID, ageText(s.Created, now), s.Status, done, tasks, failed, bytesText(s.Size), printable(s.Program))
	}
	return t.flush()
}

func (a *app) showRunCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show an embedded run", Args: oneArg("the ID of a run, or last"), ValidArgsFunction: a.completeRuns,
		Example: `  bridgefour runs show last
  bridgefour runs show 20261129-1`,
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := a.findRun(args[0])
			if err != nil {
				return err
			}
			s, err := stateOfRun(d)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.stdout, s)
			}
			t := newTable(a.stdout)
			t.row("run", s.ID)
			t.row("status", s.Status)
			t.row("created", ageText(s.Created, time.Now()))
			t.row("command", printable(s.Program))
			t.row("folder", orDash(printable(s.Dir)))
			t.row("output", orDash(printable(s.Output)))
			if s.Tasks > 0 {
				t.row("tasks", fmt.Sprintf("%s, %s done, %s failed", countText(s.Tasks), countText(s.Done), countText(s.Failed)))
			}
			t.row("size", bytesText(s.Size))
			t.row("state", printable(s.Path))
			if err := t.flush(); err != nil || s.Status == runGoesOn {
				return err
			}
			a.stderr.Printf("'%s run --resume %s' continues it, 'bridgefour runs rm %[2]s' removes it", s.continues(), s.ID)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) removeRunsCommand() *cobra.Command {
	var all, ended bool
	cmd := &cobra.Command{
		Use: "rm [ID…]", Short: "Remove embedded runs with their logs, and with the results of their tasks unless they had an --output",
		Long: `Remove embedded runs with their logs, and with the results of their tasks unless they had an --output. One that goes on is not removed:
interrupt it first.`,
		Example: `  bridgefour runs rm last
  bridgefour runs rm --ended`,
		ValidArgsFunction: a.completeRuns,
		Args: func(cmd *cobra.Command, args []string) error {
			if (len(args) > 0) == (all || ended) || all && ended {
				return usagef(cmd, "runs rm: want IDs of runs, or --ended, or --all")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if all || ended {
				return a.removeRuns(ended)
			}
			for _, id := range args {
				d, err := a.findRun(id)
				if err == nil {
					err = a.removeRun(d)
				}
				if errors.Is(err, errRunning) {
					return fmt.Errorf("run %s goes on: interrupt it first", d.info.ID)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove all runs that no process runs")
	cmd.Flags().BoolVar(&ended, "ended", false, "remove those whose job has ended, and keep those that were interrupted")
	return cmd
}

// removeRuns removes all runs that no process runs, or those of them whose job has ended.
func (a *app) removeRuns(ended bool) error {
	all, err := a.keptRuns()
	if err != nil {
		return err
	}
	for _, d := range all {
		if ended && (d.info.Status == "" || d.info.Status == runInterrupted) {
			continue
		}
		err := a.removeRun(d)
		if errors.Is(err, errRunning) {
			a.stderr.Printf("run %s goes on; not removed", d.info.ID)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) removeRun(d *runDir) error {
	err := d.acquire(acquireTimeout)
	if err == nil {
		err = d.remove()
	}
	if err == nil {
		_, err = fmt.Fprintf(a.stdout, "run %s removed\n", d.info.ID)
	}
	return err
}
