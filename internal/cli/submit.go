package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

func (a *app) submitCommand() *cobra.Command {
	var (
		f       jobFlags
		watch   watchFlags
		live    resultFlags
		cluster string
		key     string
		wait    bool
		schema  bool
	)
	cmd := &cobra.Command{
		Use:   "submit PROGRAM | submit -f FILE",
		Short: "Submit a job, or several, to a cluster and print their numbers",
		Example: a.jobExample("submit", "wordcount --input /data/books --output /data/counts") + `
  bridgefour submit -f job.yaml --wait
  bridgefour submit -f flow.yaml --overwrite`,
		ValidArgsFunction: a.completeBuiltins,
		RunE: func(cmd *cobra.Command, args []string) error {
			if schema {
				return printJobSchema(a.stdout)
			}
			if len(key) > api.KeyBytesMax {
				return usagef(cmd, "--key has %d bytes: at most %d", len(key), api.KeyBytesMax)
			}
			requests, flow, err := a.submission(cmd, &f, &live, args)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if f.dryRun {
				return a.dryRunAll(cmd, requests, flow)
			}
			c, err := a.connect(cluster, 0)
			if err != nil {
				return err
			}
			if !flow {
				if err := a.resolveAfter(cmd, c, &requests[0]); err != nil {
					return err
				}
			}
			jobs, err := a.submitAll(ctx, c, requests, flow, key)
			switch {
			case err != nil:
				return orInterrupted(ctx, err)
			case watch.json && !wait && flow:
				return printJSON(a.stdout, api.Flow{Jobs: jobs})
			case watch.json && !wait:
				return printJSON(a.stdout, jobs[0])
			}
			ids, err := a.printNumbers(jobs)
			if err != nil || !wait {
				return err
			}
			return a.follow(ctx, c, watch, live, ids...)
		},
	}
	f.add(cmd.Flags())
	a.completeJob(cmd)
	markSecretFile(cmd, "secret", "=@")
	a.helpBuiltins(cmd)
	addCluster(cmd, &cluster)
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "`file` that describes the job, or several that come after each other, YAML or JSON; - is standard input. "+
		"Other flags replace what they set in it, in each of several jobs; then those of one job (the program, the input, --name, --output, --after) are refused")
	cmd.Flags().StringVar(&key, "key", "", "submitting again with the same `key` within 24 hours gives the same jobs")
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON schema of job files, for editors, and do nothing else")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the end of the job; exit codes as of run, of several jobs that of the worst")
	watch.add(cmd)
	live.addLive(cmd.Flags())
	return cmd
}

// submission is the requests from flags, or from a file and the flags that replace parts of it. Those of a flow are several. Live are checked
// against them.
func (a *app) submission(cmd *cobra.Command, f *jobFlags, live *resultFlags, args []string) (jobs []api.JobRequest, flow bool, err error) {
	if f.file == "" {
		r, err := a.request(cmd, f, args)
		if err == nil {
			err = f.passAll(cmd, r)
		}
		if err == nil {
			err = live.check(a, cmd, r)
		}
		if err != nil {
			return nil, false, err
		}
		return []api.JobRequest{*r}, false, nil
	}
	jobs, flow, err = a.readJobFile(cmd, f.file)
	if err == nil && flow {
		err = a.checkFlowFlags(cmd, args)
	}
	if err == nil {
		err = a.override(cmd, f, args, jobs)
	}
	for i := range jobs {
		if err == nil {
			err = live.check(a, cmd, &jobs[i])
		}
	}
	return jobs, flow, err
}

// printNumbers prints the numbers of jobs, one a line.
func (a *app) printNumbers(jobs []api.Job) ([]uint64, error) {
	ids := make([]uint64, len(jobs))
	for i := range jobs {
		ids[i] = jobs[i].ID
		if _, err := fmt.Fprintln(a.stdout, jobs[i].ID); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// submitAll submits requests, and prints the warnings of each.
func (a *app) submitAll(ctx context.Context, c *client.Client, requests []api.JobRequest, flow bool, key string) (jobs []api.Job, err error) {
	if flow {
		jobs, err = c.SubmitFlow(ctx, &api.FlowRequest{Jobs: requests}, key)
	} else {
		var job api.Job
		job, err = a.submit(ctx, c, &requests[0], key)
		jobs = []api.Job{job}
	}
	if err != nil {
		return nil, err
	}
	for i := range jobs {
		a.printWarnings(&jobs[i])
	}
	return jobs, nil
}
