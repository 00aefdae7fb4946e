package cli

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/placeholder"
)

// checkCommand refuses a command line that is one word.
func checkCommand(cmd *cobra.Command, word string) error {
	if !strings.ContainsAny(word, " \t\n|;&<>") || exists(word) {
		return nil
	}
	if _, err := exec.LookPath(word); err == nil {
		return nil
	}
	return usagef(cmd, "the command %q is one word, and no such program exists: give its words as arguments of their own, or the line to --shell %s", word, placeholder.Quote(word))
}

// warnWords warns of words that only a shell understands.
func (a *app) warnWords(r *api.JobRequest) {
	for _, word := range r.Program.Command {
		if slices.Contains([]string{"|", "||", "&&", ">", ">>", "<", ";", "&", "2>&1"}, word) {
			a.stderr.Printf("warning: %q is an argument of %s like any other; a line with pipes or redirections is run by --shell", word, r.Program.Command[0])
			return
		}
	}
}

// warnVariables warns of variables that a shell of the command reads, and that are set here alone.
func warnVariables(cmd *cobra.Command, r *api.JobRequest) {
	line := r.Program.Shell
	if i := placeholder.ShellCode(r.Program.Command); i >= 0 {
		line = r.Program.Command[i]
	}
	var missing []string
	for _, name := range placeholder.Variables(line) {
		_, here := os.LookupEnv(name)
		_, given := r.Env[name]
		_, secret := r.Secrets[name]
		if here && !given && !secret && !slices.Contains(local, name) && name != "LANG" && name != "TZ" && !strings.HasPrefix(name, "B4_") {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		cmd.PrintErrf("warning: the command reads $%s, which the tasks do not have: --env %s passes on what is set here\n",
			strings.Join(missing, " and $"), strings.Join(missing, " --env "))
	}
}

// noteStdin says that there is something on standard input that nobody reads.
func (a *app) noteStdin() {
	f, ok := a.stdin.(*os.File)
	if a.stdinRead || !ok {
		return
	}
	info, err := f.Stat()
	if err != nil {
		return
	}
	unread := false
	switch mode := info.Mode(); {
	case mode.IsRegular():
		at, err := f.Seek(0, io.SeekCurrent)
		unread = err == nil && at < info.Size()
	case mode&os.ModeNamedPipe != 0:
		pipe := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		n, err := unix.Poll(pipe, 0)
		unread = err == nil && n == 1 && pipe[0].Revents&unix.POLLIN != 0
	}
	if unread {
		a.stdinRead = true
		a.stderr.Printf("note: standard input is not read; --lines - makes a task of each of its lines")
	}
}
