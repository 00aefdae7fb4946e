package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/jobs"
)

// Exit codes, as the documentation promises them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitStopped     = 3
	exitUnreachable = 4
	exitPartial     = 5
	exitNotAllowed  = 6
	exitNotObtained = 75 // EX_TEMPFAIL: a lock is not free
	exitLockLost    = 76
	exitTimeout     = 124 // as of timeout(1)
	exitInterrupted = 130
)

// Main runs the command line of this process and returns its exit code. Without a version from the build, that of the module is
// used.
func Main(version string) int {
	a := processApp(version, jobs.All())
	return a.main(context.Background(), os.Args[1:])
}

func processApp(version string, all []bridgefour.Job) *app {
	stderr := newConsole(os.Stderr)
	return &app{
		stdin: os.Stdin, stdout: stderr.Beside(os.Stdout), stderr: stderr, env: os.LookupEnv, version: version, program: "bridgefour", jobs: all,
	}
}

// Command is the command line without a process around it, for its documentation.
func Command() *cobra.Command { return (&app{jobs: jobs.All()}).root() }

// app holds what all commands share.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  *console
	env     func(name string) (string, bool)
	version string
	program string           // as a user calls it
	jobs    []bridgefour.Job // the built-in ones
	own     bool             // they are those of a program of a user
	typed   map[string]bool  // flags set on the command line, not by the environment or the configuration file
	outside transport.Files  // of the command's flags
	lines   *os.File         // the list of --lines, if it is long
	file    *jobFile         // that describes the job; nil: none does
	view    *runView         // of the embedded run that --run names; nil: the command is about a cluster
	// stdinRead: standard input is read, or somebody was told that it is not.
	stdinRead bool
	claims    []*net.UnixConn // see claim
	lost      atomic.Bool     // the cluster is not reachable, and that was printed
}

// errInterrupted is the cancellation cause of a command's context at the first SIGINT, SIGTERM or SIGHUP.
var errInterrupted = errors.New("interrupted")

func (a *app) main(ctx context.Context, args []string) int {
	// A closed stdout (as by head) must give EPIPE and not end the process: an embedded run still has to clean up. The signal is
	// caught rather than ignored, because tasks would inherit an ignored signal.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	interrupts := make(chan os.Signal, 2)
	notifyUnlessIgnored(interrupts, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(interrupts)
	go func() {
		select {
		case <-interrupts:
			cancel(errInterrupted)
		case <-ctx.Done():
			return
		}
		for sig := range interrupts {
			if sig != syscall.SIGHUP { // of which the end of a terminal causes several
				a.stderr.Status("")
				os.Exit(exitInterrupted)
			}
		}
	}()
	stops := make(chan os.Signal, 2)
	notifyUnlessIgnored(stops, syscall.SIGTSTP, syscall.SIGCONT)
	defer signal.Stop(stops)
	go jobControl(stops)

	root := a.root() //nolint:contextcheck // cobra gives the commands their context
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.stderr.Status("")
	return a.report(err)
}

// notifyUnlessIgnored is signal.Notify for the signals that the parent process has not had ignored, as nohup does.
func notifyUnlessIgnored(to chan<- os.Signal, signals ...os.Signal) {
	for _, sig := range signals {
		if !signal.Ignored(sig) {
			signal.Notify(to, sig)
		}
	}
}

// jobControl stops this process and the commands of its tasks at Ctrl-Z: they are not in its process group. SIGCONT continues them.
func jobControl(signals <-chan os.Signal) {
	for sig := range signals {
		if sig == syscall.SIGTSTP {
			keeper.Pause()
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // cannot fail
		} else {
			keeper.Continue()
		}
	}
}

// root is the command with all its subcommands.
func (a *app) root() *cobra.Command {
	version := false
	root := &cobra.Command{
		Use:   "bridgefour",
		Short: "One computation over many inputs, on one machine or a thousand, each output exactly once",
		Example: a.jobExample("run", "wordcount --input books/ --output counts") + `
  bridgefour run --input 'logs/*.gz' -- sh -c 'grep -c ERROR || [ $? = 1 ]'
  bridgefour run --range 1-1000 -- ./simulate {}`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          a.unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return a.printVersion()
			}
			return cmd.Help()
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.applySettings(cmd); err != nil {
				return err
			}
			a.warnOpenKeys(cmd)
			var err error
			a.outside, err = outsideFiles(cmd)
			return err
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetIn(a.stdin)
	root.SetFlagErrorFunc(a.flagError)
	root.Flags().BoolVar(&version, "version", false, "print the version") // cobra's own needs templates, for which the linker keeps every exported method
	root.PersistentFlags().String("config", "", "YAML `file` with values for flags, by their names; for a leader or worker also the original system's application.conf")
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run jobs:"},
		&cobra.Group{ID: groupJobs, Title: "Manage jobs of a cluster:"},
		&cobra.Group{ID: groupCluster, Title: "Run a cluster:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupRun, a.runCommand(), a.runsCommand(), a.submitCommand(), a.devCommand())
	add(groupJobs, a.jobsCommand(), a.viewCommand(a.jobCommand()), a.viewCommand(a.tasksCommand()), a.viewCommand(a.logsCommand()),
		a.viewCommand(a.resultCommand()), a.waitCommand(), a.viewCommand(a.explainCommand()), a.stopCommand(), a.retryCommand(),
		a.forgetCommand(), a.statusCommand())
	add(groupCluster, a.leaderCommand(), a.workerCommand(), a.clusterCommand(), a.leadersCommand(), a.workersCommand(),
		a.recoverCommand(), a.tokenCommand(), a.caCommand(), a.quotaCommand(), a.retentionCommand(), a.lockCommand(), a.locksCommand(), a.loginCommand(), a.logoutCommand(), a.contextCommand(), a.uiCommand(), a.healthzCommand())
	root.AddCommand(a.versionCommand(), a.completionCommand())
	a.nameOwn(root)
	return root
}

// Groups of commands in the help.
const (
	groupRun     = "run"
	groupJobs    = "jobs"
	groupCluster = "cluster"
)
