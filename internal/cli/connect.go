package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// clusterDefault is the default address of a leader.
const clusterDefault = transport.Scheme + "://127.0.0.1:" + transport.DefaultPort

// followRetryFor is how long a command that watches a job retries while there is no leader.
const followRetryFor = 10 * time.Minute

// readFlags are the flags of the commands that read from a cluster.
type readFlags struct {
	cluster string
	json    bool
}

func (r *readFlags) add(cmd *cobra.Command) {
	addCluster(cmd, &r.cluster)
	cmd.Flags().BoolVar(&r.json, "json", false, "print what the HTTP API returns")
}

func addCluster(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "cluster", "", "`url` of the cluster, unix:PATH, or the name of a context; several URLs, separated by commas, are tried in turn")
	addClientOutside(cmd)
}

// localCluster is the cluster of this machine: the dev or the leader whose socket is in its default data directory, or else the one at the
// default port. One of another user is used only if it is named: it would see the job.
func (a *app) localCluster() (string, error) {
	if state, err := a.stateDir(); err == nil {
		for _, server := range []string{devDir, leaderDir} {
			address := transport.UnixAddress(filepath.Join(state, server, node.SocketName))
			if c, err := transport.Dial(context.Background(), address); err == nil { // one that was killed leaves its socket
				_ = c.Close()
				return address, nil
			}
		}
	}
	if c, err := transport.Dial(context.Background(), discover.Local); err == nil {
		err = access.CheckServer(context.Background(), c, discover.Local)
		_ = c.Close() // nothing was written
		if errors.Is(err, access.ErrOtherUser) {
			return "", fmt.Errorf("%w: to use it, log in with a string of that user's 'bridgefour token create', or name it with --cluster", err)
		}
	}
	return clusterDefault, nil
}

// connect makes a client of a cluster without sending anything. Without a name or an address it is that of the current context, or else
// that of this machine.
func (a *app) connect(cluster string, patience time.Duration) (*client.Client, error) {
	if a.view != nil {
		return a.view.client, nil
	}
	urls, given, err := clusterAccess(cluster)
	if err != nil {
		return nil, err
	}
	if len(urls) == 0 && given == nil {
		local, err := a.localCluster()
		if err != nil {
			return nil, err
		}
		urls = []string{local}
	}
	given = withOutside(given, a.outside)
	c, err := client.New(urls, client.Options{Access: given, Patience: patience, OnReconnect: a.reportReconnect, OnLeaders: a.leadersSaver(given)})
	if err != nil {
		return nil, usagef(nil, "--cluster: %v", err)
	}
	return c, nil
}

// reportReconnect prints once what several calls may find.
func (a *app) reportReconnect(r client.Reconnect) {
	lost := r.Err != nil
	switch {
	case a.lost.Swap(lost) == lost:
		return
	case lost:
		a.stderr.Printf("%v; retrying for %v", r.Err, durationText(r.Tries))
		return
	}
	a.stderr.Printf("the cluster is reachable again after %v", durationText(r.After))
}

// printWarnings prints the warnings of an accepted job, or of its tasks.
func (a *app) printWarnings(job *api.Job) {
	for _, w := range job.Warnings {
		a.stderr.Printf("warning: %s", printableLines(w))
	}
}

// rawJSON prints what the API returns for a path.
func (a *app) rawJSON(ctx context.Context, c *client.Client, path string) error {
	raw, err := c.Raw(ctx, path)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	_, err = a.stdout.Write(raw)
	return err
}

// readCommand lets cmd show what get returns or, with --json, what the API returns at path.
func readCommand[T any](a *app, cmd *cobra.Command, path string, get func(*client.Client, context.Context) (T, error), show func(T) error) *cobra.Command {
	var r readFlags
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return read(a, cmd, r, path, get, show) }
	r.add(cmd)
	return cmd
}

func read[T any](a *app, cmd *cobra.Command, r readFlags, path string, get func(*client.Client, context.Context) (T, error), show func(T) error) error {
	c, err := a.connect(r.cluster, 0)
	if err != nil {
		return err
	}
	if r.json {
		return a.rawJSON(cmd.Context(), c, path)
	}
	v, err := get(c, cmd.Context())
	if err != nil {
		return orInterrupted(cmd.Context(), err)
	}
	return show(v)
}

// groupCommand returns a command that has only subcommands.
func (a *app) groupCommand(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: a.unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	var examples []string
	for _, c := range commands {
		examples = append(examples, c.Example)
	}
	cmd.Example = strings.Join(examples, "\n")
	return cmd
}

// removeCommand lets cmd remove what its argument names. text is the format of the answer.
func removeCommand(a *app, cmd *cobra.Command, remove func(*client.Client, context.Context, string) error, text string) *cobra.Command {
	var cluster string
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cluster, 0)
		if err != nil {
			return err
		}
		return a.answer(cmd.Context(), remove(c, cmd.Context(), args[0]), nil, false, text, args[0])
	}
	addCluster(cmd, &cluster)
	return cmd
}

// answer prints what a change has returned: in words, or as JSON.
func (a *app) answer(ctx context.Context, err error, v any, asJSON bool, format string, args ...any) error {
	switch {
	case err != nil:
		return orInterrupted(ctx, err)
	case asJSON:
		return printJSON(a.stdout, v)
	}
	_, err = fmt.Fprintf(a.stdout, format, args...)
	return err
}

func parseNumber(cmd *cobra.Command, noun, s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, usagef(cmd, "invalid %s number %q", noun, s)
	}
	return n, nil
}

// numbered parses the number that is a command's only argument and makes a client of its cluster.
func (a *app) numbered(cmd *cobra.Command, noun string, args []string, cluster string) (*client.Client, uint64, error) {
	id, err := parseNumber(cmd, noun, args[0])
	if err != nil {
		return nil, 0, err
	}
	c, err := a.connect(cluster, 0)
	return c, id, err
}

// oneArg accepts exactly one argument; what describes it in errors.
func oneArg(what string) cobra.PositionalArgs { return someArgs(1, what) }

// optionalArg accepts one argument or none.
func optionalArg(what string) cobra.PositionalArgs { return someArgs(0, what) }

// someArgs accepts one argument, or as few as least. An empty one, as an unset variable leaves it, is none.
func someArgs(least int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef(cmd, "%s: missing argument: want %s", commandName(cmd), what)
		case len(args) > 1:
			return usagef(cmd, "%s takes one argument, %s; unexpected %q", commandName(cmd), what, args[1])
		case len(args) == 1 && args[0] == "":
			return usagef(cmd, "%s: missing argument: want %s; the one given is empty; is a variable unset?", commandName(cmd), what)
		}
		return nil
	}
}
