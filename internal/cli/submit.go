package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
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
		Short: "Submit a job to a cluster and print its number",
		Example: `  bridgefour submit wordcount --input /data/books --output /data/counts
  bridgefour submit -f job.yaml --wait`,
		ValidArgsFunction: completeBuiltins,
		RunE: func(cmd *cobra.Command, args []string) error {
			if schema {
				return printJobSchema(a.stdout)
			}
			if len(key) > api.KeyBytesMax {
				return usagef(cmd, "--key has %d bytes: at most %d", len(key), api.KeyBytesMax)
			}
			req, err := a.submission(cmd, &f, args)
			if err == nil {
				err = live.check(cmd, req.Output)
			}
			if err != nil {
				return err
			}
			if f.dryRun {
				return a.dryRun(cmd, req)
			}
			c, err := a.connect(cluster, 0)
			if err != nil {
				return err
			}
			if err := a.resolveAfter(cmd, c, req); err != nil {
				return err
			}
			job, err := a.submit(cmd.Context(), c, req, key)
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			a.printWarnings(&job)
			if watch.json && !wait {
				return printJSON(a.stdout, job)
			}
			if _, err := fmt.Fprintln(a.stdout, job.ID); err != nil || !wait {
				return err
			}
			return a.follow(cmd.Context(), c, watch, live, job.ID)
		},
	}
	f.add(cmd.Flags())
	a.completeJob(cmd)
	markSecretFile(cmd, "secret", "=@")
	helpBuiltins(cmd)
	addCluster(cmd, &cluster)
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "`file` that describes the job, YAML or JSON, in which other flags replace what they set; - is standard input")
	cmd.Flags().StringVar(&key, "key", "", "submitting again with the same `key` within 24 hours gives the same job")
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON schema of job files, for editors, and do nothing else")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the end of the job; exit codes as of run")
	watch.add(cmd)
	live.addLive(cmd.Flags())
	return cmd
}

// submission is the job request from flags, or from a file and the flags that replace parts of it.
func (a *app) submission(cmd *cobra.Command, f *jobFlags, args []string) (*api.JobRequest, error) {
	if f.file == "" {
		r, err := a.request(cmd, f, args)
		if err == nil {
			err = f.passAll(cmd, r)
		}
		return r, err
	}
	r, err := a.readJobFile(cmd, f.file)
	if err == nil {
		err = a.override(cmd, f, args, r)
	}
	return r, err
}
