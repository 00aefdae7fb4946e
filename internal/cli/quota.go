package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/state"
)

func (a *app) quotaCommand() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List the quotas", Args: noArgs, Example: "  bridgefour quota list"}
	remove := &cobra.Command{Use: "remove USER", Short: "Remove the quota of a user: that of * holds from then on", Args: oneArg("the name of a user"), Example: "  bridgefour quota remove ann"}
	return a.groupCommand("quota", "Bound what users take of the cluster: 'quota set USER', 'quota list', 'quota remove USER'",
		a.setQuotaCommand(), readCommand(a, list, client.QuotasPath, (*client.Client).Quotas, a.printQuotas),
		removeCommand(a, remove, (*client.Client).RemoveQuota, "quota of %s removed\n"))
}

func (a *app) setQuotaCommand() *cobra.Command {
	var cluster string
	var given api.QuotaRequest
	cmd := &cobra.Command{
		Use: "set USER", Short: "Set what a user may use", Args: oneArg("the name of a user, or * for all users without a quota of their own"),
		Long: `Set what a user may use of the cluster. What is not named stays as it is; 'none' removes a bound. A user without a quota starts
with that of '*', which holds for all users without one. What runs beyond a lowered quota runs to its end.`,
		Example: `  bridgefour quota set ann --slots 16 --jobs 100
  bridgefour quota set '*' --slots 8
  bridgefour quota set ann --slots none --weight 3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			changed := cmd.Flags().Changed
			if !changed("slots") && !changed("jobs") && !changed("weight") {
				return usagef(cmd, "nothing to set: give --slots, --jobs or --weight")
			}
			c, err := a.connect(cluster, 0)
			if err != nil {
				return err
			}
			list, err := c.Quotas(cmd.Context())
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			q := quotaOf(list, args[0])
			if changed("slots") {
				q.Slots = given.Slots
			}
			if changed("jobs") {
				q.Jobs = given.Jobs
			}
			if changed("weight") {
				q.Weight = given.Weight
			}
			set, err := c.SetQuota(cmd.Context(), args[0], q)
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			return a.printQuotas(api.QuotaList{Quotas: []api.Quota{set}})
		},
	}
	fs := cmd.Flags()
	fs.Var(countBound(&given.Slots), "slots", "`number` of slots that attempts of the user's jobs may occupy at one time, or none")
	fs.Var(countBound(&given.Jobs), "jobs", "`number` of the user's jobs that have not ended, or none")
	fs.Var(countBound(&given.Weight), "weight", "`weight` of the user's fair share, 1 to 1000: one of 2 gets twice the slots of one of 1")
	addCluster(cmd, &cluster)
	return cmd
}

// quotaOf returns the bounds that hold for a user.
func quotaOf(list api.QuotaList, user string) (q api.QuotaRequest) {
	for _, other := range list.Quotas {
		switch other.User {
		case user:
			return other.QuotaRequest
		case state.Everyone:
			q = other.QuotaRequest
		}
	}
	return q
}

func (a *app) printQuotas(list api.QuotaList) error {
	if len(list.Quotas) == 0 {
		a.stderr.Printf("no quotas; 'bridgefour quota set USER' sets one")
		return nil
	}
	t := newTable(a.stdout, "USER", "SLOTS", "JOBS", "WEIGHT")
	for _, q := range list.Quotas {
		t.row(printable(q.User), countBound(&q.Slots).String(), countBound(&q.Jobs).String(), strconv.Itoa(int(max(1, q.Weight))))
	}
	return t.flush()
}
