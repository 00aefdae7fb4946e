package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/view"
)

// Exit codes of lock for its command, as of a shell.
const (
	exitCannotRun = 126
	exitNoCommand = 127
	exitSignal    = 128 // plus the signal
)

// fenceEnv is the variable with the fencing number.
const fenceEnv = "B4_LOCK_FENCE"

// lockFlags are the flags of lock.
type lockFlags struct {
	cluster string
	shared  bool
	max     int
	wait    time.Duration
	noWait  bool
	ttl     time.Duration
	note    string
	quiet   bool
}

func (a *app) lockCommand() *cobra.Command {
	var f lockFlags
	cmd := &cobra.Command{
		Use: "lock NAME… -- CMD ARG…", Short: "Run a command while holding locks of the cluster",
		Long: `Run a command while holding locks of the cluster, all of them together. Names are paths: a/b excludes a and a/b/c, and not a/bc. Requests
are granted in their order.

The locks are renewed while the command runs. If they cannot be, the command and all that it has started is stopped before the cluster gives them
to others: SIGTERM, then SIGKILL. A machine that was suspended, or a stopped process, may find out late: $` + fenceEnv + ` has a number that is larger
for each later holder, which what must not be written twice can check. docs/locks.md says more.

The command has the input and output of this one, but an empty input if this one is in the background of a terminal when the command starts.

The exit code is that of the command; ` + strconv.Itoa(exitNotObtained) + ` if the locks were not obtained in time, ` + strconv.Itoa(exitLockLost) + ` if they were lost while it ran; 128 and the signal
that killed it; 126 or 127 if it cannot be run.`,
		Example: `  bridgefour lock nightly-export --no-wait -- ./export.sh
  bridgefour lock licence/matlab --max 5 -- matlab -batch run
  bridgefour lock db1 db2 --shared --wait 10m -- pg_dump …`,
		RunE: func(cmd *cobra.Command, args []string) error {
			at := cmd.ArgsLenAtDash()
			switch {
			case at < 0, at == len(args):
				return usagef(cmd, "no command given: put -- before a command, as in 'bridgefour lock NAME -- CMD'")
			case at == 0:
				return usagef(cmd, "no name given: want a name for the lock before --, as in 'bridgefour lock NAME -- %s'", args[0])
			}
			for _, name := range args[:at] {
				if name == "" || len(name) > api.LockNameBytesMax {
					return usagef(cmd, "a name of a lock has %d bytes: want 1 to %d", len(name), api.LockNameBytesMax)
				}
			}
			if err := f.check(cmd); err != nil {
				return err
			}
			return a.runLocked(cmd.Context(), f, args[:at], args[at:])
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.shared, "shared", false, "share the locks with others that do: it excludes exclusive holders only")
	fs.IntVar(&f.max, "max", 1, "`number` of holders that may have the locks together, such as licences, if all of them give the same")
	fs.DurationVar(&f.wait, "wait", 0, "give up after this `time` (default: never)")
	fs.BoolVar(&f.noWait, "no-wait", false, "give up at once if the locks are not free")
	fs.DurationVar(&f.ttl, "ttl", api.LockTTLDefault, "`time` after which the cluster gives the locks away if they are not renewed, 1s to 1h")
	fs.StringVar(&f.note, "note", "", "`text` shown in lists")
	fs.BoolVar(&f.quiet, "quiet", false, "do not print what is waited for")
	addCluster(cmd, &f.cluster)
	return cmd
}

func (f *lockFlags) check(cmd *cobra.Command) error {
	switch {
	case f.max < 1 || f.max > api.LockMaxMax:
		return usagef(cmd, "--max is %d: want 1 to %d", f.max, api.LockMaxMax)
	case f.shared && f.max > 1:
		return usagef(cmd, "--shared has no bound, and --max is one: give one of them")
	case f.noWait && cmd.Flags().Changed("wait"):
		return usagef(cmd, "both --wait and --no-wait are given")
	case cmd.Flags().Changed("wait") && (f.wait <= 0 || f.wait > api.LockWaitMax):
		return usagef(cmd, "--wait is %v: want a time above 0, up to %v; --no-wait gives up at once", f.wait, api.LockWaitMax)
	case f.ttl < api.LockTTLMin || f.ttl > api.LockTTLMax:
		return usagef(cmd, "--ttl is %v: want %v to %v", f.ttl, api.LockTTLMin, api.LockTTLMax)
	}
	return nil
}

// graceMax is the time between SIGTERM and SIGKILL for a command whose lock ends; it is a quarter of a short TTL.
const graceMax = 2 * time.Second

// marginMax is how long before the end of a lock nothing of its command is left: for processes that end slowly, and for clocks that do not run at one
// rate. It is a tenth of a short TTL.
const marginMax = time.Second

// runLocked runs a command with locks.
func (a *app) runLocked(ctx context.Context, f lockFlags, names, argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return cannotRun(argv[0], err)
	}
	c, err := a.connect(f.cluster, 0) //nolint:contextcheck // it sends nothing
	if err != nil {
		return err
	}
	ctx, cancel := untilQuit(ctx)
	defer cancel()
	run := heldCommand{grace: min(graceMax, f.ttl/4), margin: min(marginMax, f.ttl/10)}
	o := client.LockOptions{
		Shared: f.shared, Max: uint32(f.max), TTL: f.ttl, Wait: f.wait, NoWait: f.noWait, Note: f.note, Holder: holderName(), OnRenew: run.extend, //nolint:gosec // checked
	}
	if !f.quiet {
		o.OnWait = a.waitReporter()
	}
	lock, err := c.Lock(ctx, names, o)
	if _, locked := client.IsLocked(err); locked {
		return &exitError{exitNotObtained, err}
	} else if err != nil {
		return orInterrupted(ctx, err)
	}
	end, err := run.do(lock, path, argv) //nolint:contextcheck // the lock's is derived from ctx
	if end.Stuck > 0 {
		return fmt.Errorf("%s of the command cannot be killed, such as process %d: the lock is not released, and ends %v after this command does", plural(uint64(end.Stuck), "process"), end.StuckPID, f.ttl) //nolint:gosec // not negative
	}
	released := lock.Release(context.WithoutCancel(ctx))
	switch {
	case end.Overdue || run.lost && errors.Is(released, client.ErrLockLost):
		return &exitError{exitLockLost, fmt.Errorf("%w; the command was stopped", cmp.Or(released, client.ErrLockLost))}
	case released != nil && !errors.Is(released, client.ErrLockLost):
		a.stderr.Printf("bridgefour: the command has ended, and its lock is not released: %v; it ends %v after its last renewal", released, f.ttl)
	}
	if err != nil {
		return cannotRun(argv[0], err)
	}
	if end.Status.Signaled() {
		return &exitError{code: exitSignal + int(end.Status.Signal())}
	}
	if code := end.Status.ExitStatus(); code != 0 {
		return &exitError{code: code}
	}
	return nil
}

// untilQuit interrupts ctx also at SIGQUIT (Ctrl-\), at which Go would end the process and leave the lock until its TTL is over.
func untilQuit(ctx context.Context) (quitting context.Context, cancel func()) {
	quitting, interrupt := context.WithCancelCause(ctx)
	quits := make(chan os.Signal, 1)
	notifyUnlessIgnored(quits, syscall.SIGQUIT)
	go func() {
		select {
		case <-quits:
			interrupt(errInterrupted)
		case <-quitting.Done():
		}
	}()
	return quitting, func() {
		interrupt(nil)
		signal.Stop(quits)
	}
}

func cannotRun(name string, err error) error {
	code := exitCannotRun
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		code = exitNoCommand
	case errors.Is(err, keeper.ErrKilled):
		code = exitSignal + int(syscall.SIGKILL)
	}
	return &exitError{code, fmt.Errorf("run %s: %w", printable(name), err)}
}

// holderName names this process in lists.
func holderName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
}

// heldCommand is a command that runs while a lock is held.
type heldCommand struct {
	grace, margin time.Duration
	keeper        keeper.Keeper
	lost          bool // it was stopped because the lock was lost; read after do
}

// extend lets the command run until just before the lock is lost.
func (h *heldCommand) extend(expires time.Time) { h.keeper.Extend(h.until(expires)) }

func (h *heldCommand) until(expires time.Time) time.Time { return expires.Add(-h.grace - h.margin) }

// do runs the command until nothing is left of it. It is stopped at an interruption, and if the lock is lost: by its keeper in time, or here if the cluster
// says so.
func (h *heldCommand) do(lock *client.Lock, path string, argv []string) (keeper.End, error) {
	defer h.keeper.Close() //nolint:errcheck // nothing is left
	stdin := os.Stdin
	if inBackground() {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return keeper.End{}, err
		}
		defer null.Close() //nolint:errcheck // the command has its own
		stdin = null
	}
	var files [3]uintptr
	for i, file := range []*os.File{stdin, os.Stdout, os.Stderr} {
		fd, err := syscall.Dup(int(file.Fd())) // 0 would be no descriptor
		if err != nil {
			return keeper.End{}, fmt.Errorf("%s: %w", file.Name(), err)
		}
		syscall.CloseOnExec(fd)
		defer syscall.Close(fd) //nolint:errcheck // the command has its own
		files[i] = uintptr(fd)
	}
	err := h.keeper.Start(&keeper.Command{
		Path: path, Argv: argv, Env: os.Environ(), EnvMore: []string{fenceEnv + "=" + strconv.FormatUint(lock.Fence(), 10)},
		Stdin: files[0], Stdout: files[1], Stderr: files[2], Until: h.until(lock.Expires()), Grace: h.grace,
	})
	if err != nil {
		return keeper.End{}, err
	}
	stopped := make(chan struct{})
	forget := context.AfterFunc(lock.Context(), func() {
		defer close(stopped)
		h.lost = errors.Is(context.Cause(lock.Context()), client.ErrLockLost)
		h.keeper.Stop(h.grace)
	})
	end, err := h.keeper.Wait()
	if !forget() {
		<-stopped
	}
	return end, err
}

// inBackground reports whether a shell runs this process in the background of the terminal that is its standard input. It would be stopped if it read there;
// its command is not in the session of the terminal, and would take what is typed at the shell.
func inBackground() bool {
	foreground, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP) // fails unless it is the controlling terminal
	return err == nil && foreground != unix.Getpgrp()
}

// waitReporter prints what a lock waits for, once for each holder.
func (a *app) waitReporter() func(*api.LockConflict) {
	last := ""
	return func(c *api.LockConflict) {
		text := "waiting for the lock " + conflictText(c, time.Now())
		key := text
		if len(c.Holders) > 0 {
			key = fmt.Sprint(c.Holders[0].ID, c.Place)
		}
		if key != last {
			a.stderr.Printf("%s", text)
		}
		last = key
	}
}

// conflictText says who has a lock, and how many are in between.
func conflictText(c *api.LockConflict, now time.Time) string {
	text := printable(c.Name)
	if len(c.Holders) > 0 {
		h := &c.Holders[0]
		verb := "held by "
		if h.Fence == 0 {
			verb = "next is "
		}
		text += ": " + verb + holderText(h) + " for " + durationText(max(0, now.Sub(h.Since)).Round(time.Second))
		if h.Note != "" {
			text += " (" + printable(h.Note) + ")"
		}
	}
	if c.Place > 1 {
		text += fmt.Sprintf("; %d are before it", c.Place)
	}
	return text
}

// holderText names a job, or a client and its user.
func holderText(h *api.LockHolder) string {
	switch {
	case h.Ended:
		text, _ := view.EndedHolder(h)
		return fmt.Sprintf("job %d (ended, %s)", h.Job, text)
	case h.Job > 0:
		return "job " + strconv.FormatUint(h.Job, 10)
	case h.Holder == "":
		return "user " + printable(h.User)
	}
	return printable(h.Holder)
}
