package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/suggest"
)

// usageError is an error in the command line.
type usageError struct {
	message string
	command string // command path for the help hint
}

func (e *usageError) Error() string { return e.message }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	e := &usageError{message: fmt.Sprintf(format, args...), command: "bridgefour"}
	if cmd != nil {
		e.command = cmd.CommandPath()
	}
	return e
}

// exitError ends the process with a code. A nil err means that the error has been printed already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// report prints err, if any, and returns the exit code.
func (a *app) report(err error) int {
	code := exitCode(err)
	if err == nil || errors.Is(err, syscall.EPIPE) {
		return code
	}
	var exit *exitError
	if errors.As(err, &exit) && exit.err == nil {
		return code
	}
	if !errors.Is(err, errInterrupted) {
		a.stderr.Printf("%s: %s", a.baseName(), a.errorText(err))
	}
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		a.stderr.Printf("See '%s --help'.", usage.command)
	case exit == nil && errors.Is(err, client.ErrUnreachable):
		a.stderr.Printf("Is a leader running there? Choose another with --cluster or BRIDGEFOUR_CLUSTER; 'bridgefour dev' starts one on this machine. " +
			"If the leaders have moved, 'bridgefour login' with a new string of 'bridgefour token create' stores their addresses.")
	}
	return code
}

// errorText formats an error: of a request, one invalid field per line, named as the user has given it.
func (a *app) errorText(err error) string {
	problem, ok := errors.AsType[*api.Problem](err)
	if !ok || len(problem.Errors) == 0 {
		return err.Error()
	}
	fields := make([]string, len(problem.Errors))
	for i, field := range problem.Errors {
		fields[i] = field.Message
		if name := a.fieldName(field.Location); name != "" {
			fields[i] = name + ": " + field.Message
		}
	}
	const general = "validation failed" // as huma, too, says of any request
	text := cmp.Or(problem.Detail, problem.Title)
	if text == general && len(fields) == 1 {
		return fields[0]
	}
	return strings.Join(append([]string{text}, fields...), "\n  ")
}

// fieldName names a field of a request, such as body.after[0] or body.program.reduce: by its flag, by its line in the job file, or as in the API.
func (a *app) fieldName(location string) string {
	path := strings.TrimPrefix(strings.TrimPrefix(location, "body."), "query.")
	key := path
	if strings.HasPrefix(path, "jobs[") { // of a flow
		_, key, _ = strings.Cut(path, "].")
	}
	key = strings.TrimPrefix(key, "program.")
	if i := strings.IndexAny(key, ".["); i >= 0 {
		key = key[:i]
	}
	if flag := fieldFlag(key); a.typed[flag] {
		return "--" + flag
	}
	if a.file != nil && path != "" {
		return a.file.at(path)
	}
	return path
}

func exitCode(err error) int {
	var exit *exitError
	var usage *usageError
	var problem *api.Problem
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE): // stdout was closed
		return exitDone
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errWaitTimeout):
		return exitTimeout
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.As(err, &problem):
		return problemCode(problem)
	default:
		return exitFailed
	}
}

// problemCode is the exit code for an API problem: a request that is refused as invalid is wrong usage, a result that is gone is not.
func problemCode(p *api.Problem) int {
	switch {
	case p.Status == http.StatusServiceUnavailable || p.Status == http.StatusBadGateway:
		return exitUnreachable
	case p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden || p.Status == http.StatusTooManyRequests:
		return exitNotAllowed
	case p.Status == http.StatusGone:
		return exitFailed
	case p.Status >= http.StatusBadRequest && p.Status < http.StatusInternalServerError:
		return exitUsage
	default:
		return exitFailed
	}
}

// unknownCommand refuses arguments that name no command.
func (a *app) unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(append(names, c.Name()), c.Aliases...)
		}
	}
	if own := a.builtinNames(); a.own && !slices.Contains(own, args[0]) {
		hint := didYouMean(args[0], append(names, own...))
		if hint == "" {
			hint = "; jobs of this program: " + strings.Join(own, ", ")
		}
		return usagef(cmd, "no job or command %q%s", args[0], hint)
	}
	if slices.Contains(a.builtinNames(), args[0]) {
		return usagef(cmd, "%q is a built-in job; 'bridgefour run %s' runs it", args[0], args[0])
	}
	return usagef(cmd, "unknown command %q%s", args[0], didYouMean(args[0], names))
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(cmd, "%s takes no arguments; unexpected %q", commandName(cmd), args[0])
	}
	return nil
}

// flagError explains a flag that could not be parsed.
func (a *app) flagError(cmd *cobra.Command, err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return usagef(cmd, "--%s %q: %s", invalid.GetFlag().Name, invalid.GetValue(), wantedValue(invalid))
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usagef(cmd, "%v", err)
	}
	if named := cmd.Flags().Args(); !cmd.HasParent() && len(named) > 0 { // the flags are those of what is not known
		return a.unknownCommand(cmd, named)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	given := "--" + unknown.GetSpecifiedName()
	hint := didYouMean(given, names)
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		given, hint = "-"+short, ""
	}
	if !cmd.HasParent() && a.own && hint == "" {
		hint = "; name a job first: " + strings.Join(a.builtinNames(), ", ")
	}
	if cmd.Flags().Lookup("split") != nil && hint == "" { // run or submit
		hint = "; a command and its flags come after --, as in 'bridgefour run -- grep -c ERROR'"
	}
	return usagef(cmd, "unknown flag %s%s", given, hint)
}

// wantedValue says what values a flag takes, instead of what failed to parse one.
func wantedValue(invalid *pflag.InvalidValueError) string {
	if errors.Is(invalid, strconv.ErrRange) {
		return "the number is out of range"
	}
	switch invalid.GetFlag().Value.Type() {
	case "bool":
		return "want true or false"
	case "int":
		return "want a whole number"
	case "uint64":
		return "want a whole number that is not negative"
	case "duration":
		return "want a duration, such as 500ms, 90s or 10m"
	}
	return invalid.Unwrap().Error()
}

// commandName is what is typed after bridgefour.
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().CommandPath()+" ")
}

// didYouMean is a suffix for an error message that suggests the closest of names; empty if none is close.
func didYouMean(given string, names []string) string {
	if closest := suggest.Closest(given, names); closest != "" {
		return fmt.Sprintf("; did you mean %s?", closest)
	}
	return ""
}

// explainServe adds a remedy to the error of a server that could not start.
func explainServe(err error, listen, dataDir string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("address %s is in use by another process: stop it, or choose another address with --listen (port 0: any free one)", listen)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("address %s does not belong to this machine: use one of its addresses with --listen, or 0.0.0.0 for all", listen)
	case errors.Is(err, syscall.EACCES) && strings.Contains(err.Error(), "listen"):
		return fmt.Errorf("no permission to listen on %s: ports below 1024 require root; choose another with --listen", listen)
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC):
		if strings.HasPrefix(err.Error(), "spool: ") {
			return fmt.Errorf("%w: choose a writable folder with --spool", err)
		}
		return fmt.Errorf("%w: choose a writable folder with --data-dir (now %s)", err, dataDir)
	default:
		return err
	}
}
