package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

// clusterDefault is where a leader listens unless told otherwise.
const clusterDefault = "http://127.0.0.1:6550"

// followPatience is how long a command that watches a job lives through the absence of a leader.
const followPatience = 10 * time.Minute

// reader is what the commands share that ask a cluster.
type reader struct {
	cluster string
	json    bool
}

func (r *reader) add(cmd *cobra.Command) {
	addCluster(cmd, &r.cluster, clusterDefault)
	cmd.Flags().BoolVar(&r.json, "json", false, "print what the HTTP API returns")
}

func addCluster(cmd *cobra.Command, to *string, def string) {
	cmd.Flags().StringVar(to, "cluster", def, "`url` of the cluster; several, separated by commas, are tried in turn")
}

// connect makes a client of a cluster; nothing is sent yet.
func (a *app) connect(cluster string, patience time.Duration) (*client.Client, error) {
	c, err := client.New(strings.Split(cluster, ","), client.Options{Patience: patience, OnReconnect: a.tellReconnect})
	if err != nil {
		return nil, usagef(nil, "--cluster: %v", err)
	}
	return c, nil
}

func (a *app) tellReconnect(r client.Reconnect) {
	if r.Err != nil {
		a.stderr.Printf("%v; trying for %v", r.Err, durationText(r.Tries))
		return
	}
	a.stderr.Printf("the cluster answers again after %v", durationText(r.After))
}

// warn passes on what the cluster has to say about a request that it took.
func (a *app) warn(job *api.Job) {
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

// subject is N or N/STAGE/INDEX.
type subject struct {
	job   uint64
	stage string // empty: the job
	index uint64
}

func parseSubject(cmd *cobra.Command, s string) (subject, error) {
	number, task, isTask := strings.Cut(s, "/")
	job, err := parseNumber(cmd, "job", number)
	if err != nil || !isTask {
		return subject{job: job}, err
	}
	stage, index, _ := strings.Cut(task, "/")
	i, err := strconv.ParseUint(index, 10, 64)
	if err != nil || stage == "" {
		return subject{}, usagef(cmd, "%q is no task; expected JOB/STAGE/INDEX, as 12/map/7", s)
	}
	return subject{job: job, stage: stage, index: i}, nil
}

func parseNumber(cmd *cobra.Command, noun, s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, usagef(cmd, "%q is no %s number", s, noun)
	}
	return n, nil
}

// numbered reads the number that is a command's one argument, and makes a client of its cluster.
func (a *app) numbered(cmd *cobra.Command, noun string, args []string, cluster string) (*client.Client, uint64, error) {
	id, err := parseNumber(cmd, noun, args[0])
	if err != nil {
		return nil, 0, err
	}
	c, err := a.connect(cluster, 0)
	return c, id, err
}

// oneArg takes exactly one argument.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 1:
			return nil
		case 0:
			return usagef(cmd, "which one? %s takes %s", cmd.CommandPath(), what)
		default:
			return usagef(cmd, "%s takes %s, and there is also %q", cmd.CommandPath(), what, args[1])
		}
	}
}

// logsQuery is the question for the logs of a subject.
func (s subject) logsQuery(follow bool) api.LogQuery {
	return api.LogQuery{Job: s.job, OneTask: s.stage != "", Stage: s.stage, Index: s.index, Follow: follow}
}
