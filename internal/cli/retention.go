package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/state"
)

func (a *app) retentionCommand() *cobra.Command {
	var r readFlags
	var given retentionFlags
	cmd := &cobra.Command{
		Use: "retention [USER]", Short: "Show or set which jobs are kept after their end", Args: optionalArg("the name of a user"),
		Long: `Show or set which jobs are kept after their end, with their logs on the leaders and, of jobs without --output, their results: of all users
together, or of USER. What is not named stays as it is; 'none' removes a bound. Without USER, --keep-jobs none is the default of 1,000.

The jobs that ended first go first. Those that 'bridgefour job keep N' keeps do not go and do not count. What a job has published in its --output
is not removed. Only administrators set the retention.`,
		Example: `  bridgefour retention
  bridgefour retention --keep-jobs 5000 --keep-for 30d --keep-bytes 2TiB
  bridgefour retention ann --keep-for 7d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			list, err := c.Retentions(cmd.Context())
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			changes := cmd.Flags().Changed("keep-jobs") || cmd.Flags().Changed("keep-for") || cmd.Flags().Changed("keep-bytes")
			if len(args) > 0 || changes {
				user := state.Everyone
				if len(args) > 0 {
					user = args[0]
				}
				set := retentionOf(list, user)
				if changes {
					set, err = c.SetRetention(cmd.Context(), user, given.over(cmd, set.RetentionRequest))
				}
				if err != nil {
					return orInterrupted(cmd.Context(), err)
				}
				list.Retentions = []api.Retention{set}
			}
			if r.json {
				return printJSON(a.stdout, list)
			}
			return a.printRetentions(list.Retentions)
		},
	}
	r.add(cmd)
	fs := cmd.Flags()
	fs.Var(countBound(&given.Jobs), "keep-jobs", "`number` of jobs, up to 100,000, or none")
	fs.Var(ageBound(&given.Seconds), "keep-for", "`time` since their end, as 12h or 30d, or none")
	fs.Var(sizeBound(&given.Bytes), "keep-bytes", "`size` of their results in the spool, as 500GiB, or none; one job is kept however large")
	return cmd
}

// retentionFlags are the bounds that are given.
type retentionFlags api.RetentionRequest

// over returns the bounds with those that are given.
func (f *retentionFlags) over(cmd *cobra.Command, set api.RetentionRequest) api.RetentionRequest {
	if cmd.Flags().Changed("keep-jobs") {
		set.Jobs = f.Jobs
	}
	if cmd.Flags().Changed("keep-for") {
		set.Seconds = f.Seconds
	}
	if cmd.Flags().Changed("keep-bytes") {
		set.Bytes = f.Bytes
	}
	return set
}

// retentionOf returns the retention of a user.
func retentionOf(list api.RetentionList, user string) api.Retention {
	for _, r := range list.Retentions {
		if r.User == user {
			return r
		}
	}
	return api.Retention{User: user}
}

func (a *app) printRetentions(list []api.Retention) error {
	t := newTable(a.stdout, "USER", "KEEP JOBS", "KEEP FOR", "KEEP BYTES")
	for _, r := range list {
		jobs := countBound(&r.Jobs).String()
		if r.User == state.Everyone {
			jobs = strconv.Itoa(int(cmp.Or(r.Jobs, state.JobsKept)))
		}
		t.row(printable(r.User), jobs, ageBound(&r.Seconds).String(), sizeBound(&r.Bytes).String())
	}
	return t.flush()
}

func (a *app) keepCommand() *cobra.Command {
	undo := false
	cmd := changeCommand(a, &cobra.Command{
		Use: "keep N…", Short: "Pin a job: it is kept after its end, whatever the retention is",
		Long: "Pin jobs: they are kept after their end, whatever the retention is ('bridgefour retention'). Up to 100 of a user can be pinned.",
		Example: `  bridgefour job keep 7
  bridgefour job keep 7 --undo`,
	}, scope{}, func(c *client.Client, ctx context.Context, id uint64) (api.Job, error) { return c.Keep(ctx, id, !undo) }, func(job api.Job) string {
		if !job.Pinned {
			return fmt.Sprintf("job %d is no longer pinned", job.ID)
		}
		return fmt.Sprintf("job %d is pinned", job.ID)
	})
	cmd.Flags().BoolVar(&undo, "undo", false, "no longer pin it")
	return cmd
}

// noteKept says which ended job goes next, if that is soon.
func (a *app) noteKept(ctx context.Context, c *client.Client) error {
	const soon = 24 * time.Hour
	cluster, err := c.Cluster(ctx)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	k, now := &cluster.Kept, time.Now()
	most := k.RetentionRequest
	if k.Next != 0 && (uint64(k.Jobs)*10 >= uint64(most.Jobs)*9 || most.Bytes > 0 && k.Bytes >= most.Bytes/10*9 || k.Until != nil && k.Until.Sub(now) < soon) { //nolint:gosec // a count
		a.stderr.Printf("kept jobs: %s; 'bridgefour job keep N' keeps one, 'bridgefour retention' is the setting", keptText(k, now))
	}
	return nil
}

// keptText describes how many ended jobs are kept, and which goes next.
func keptText(k *api.KeptJobs, now time.Time) string {
	text := fmt.Sprintf("%s ended of at most %s", countText(uint64(k.Jobs)), countText(uint64(k.RetentionRequest.Jobs))) //nolint:gosec // a count
	if k.RetentionRequest.Bytes > 0 {
		text += fmt.Sprintf(", results of %s of at most %s", bytesText(k.Bytes), bytesText(k.RetentionRequest.Bytes))
	}
	if k.Pinned > 0 {
		text += fmt.Sprintf(", and %d pinned", k.Pinned)
	}
	switch {
	case k.Next == 0:
	case k.Jobs > int(k.RetentionRequest.Jobs):
		text += fmt.Sprintf("; job %d goes now", k.Next)
	case k.Until != nil:
		text += fmt.Sprintf("; job %d goes in %s", k.Next, durationText(max(0, k.Until.Sub(now))))
		if k.Jobs >= int(k.RetentionRequest.Jobs) {
			text += " or when the next one ends"
		}
	case k.Jobs >= int(k.RetentionRequest.Jobs):
		text += fmt.Sprintf("; job %d goes when the next one ends", k.Next)
	default:
		text += fmt.Sprintf("; job %d goes when %s more have ended", k.Next, countText(uint64(int(k.RetentionRequest.Jobs)-k.Jobs+1))) //nolint:gosec // positive
	}
	return text
}
