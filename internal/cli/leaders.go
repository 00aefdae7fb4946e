package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

func (a *app) leadersCommand() *cobra.Command {
	var r reader
	cmd := &cobra.Command{
		Use: "leaders", Short: "List the leaders; 'leaders add ADDR' and 'leaders remove ID' change who they are",
		Long: `List the leaders of a cluster, and who of them leads. A majority of those that vote must live for the cluster to work:
of 3 leaders one may be lost, of 5 two.`,
		Args: a.noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			if r.json {
				return a.rawJSON(cmd.Context(), c, client.LeadersPath)
			}
			list, err := c.Leaders(cmd.Context())
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			return a.printLeaders(&list)
		},
	}
	r.add(cmd)
	cmd.AddCommand(a.addLeaderCommand(), a.removeLeaderCommand())
	return cmd
}

func (a *app) printLeaders(list *api.LeaderList) error {
	now := time.Now()
	t := newTable(a.stdout, "LEADER", "STATUS", "ADDRESS", "VOTES", "POSITION", "SEEN")
	for _, l := range list.Leaders {
		votes := "yes"
		if !l.Votes {
			votes = "no"
		}
		seen := "-"
		if l.Heard != nil {
			seen = ageText(*l.Heard, now)
		}
		t.row(strconv.FormatUint(l.ID, 10), l.Status, orDash(l.Address), votes, strconv.FormatUint(l.Index, 10), seen)
	}
	return t.flush()
}

func (a *app) addLeaderCommand() *cobra.Command {
	var r reader
	cmd := &cobra.Command{
		Use: "add ADDR", Short: "Make the fresh leader that listens at host:port a leader of this cluster",
		Long: `Make the leader that listens at host:port a leader of this cluster. It must be fresh: started on an empty data
directory and not used for anything. It catches up first, and gets a vote once it has.

'bridgefour leader --join ADDR' on the new machine does the same from there.`,
		Args: oneArg("the host:port of a fresh leader"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			node, err := c.AddLeader(cmd.Context(), args[0])
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			if r.json {
				return printJSON(a.stdout, node)
			}
			text := "joins: it catches up, and votes once it has"
			if node.Votes {
				text = "is a leader of this cluster"
			}
			_, err = fmt.Fprintf(a.stdout, "leader %d at %s %s\n", node.ID, node.Address, text)
			return err
		},
	}
	r.add(cmd)
	return cmd
}

func (a *app) removeLeaderCommand() *cobra.Command {
	var cluster string
	var force bool
	cmd := &cobra.Command{
		Use: "remove ID", Short: "Take a leader out of the cluster, alive or dead", Args: oneArg("a leader's number"),
		Long: `Take a leader out of the cluster, alive or dead. Its number is never given again, and its data directory cannot come
back: a replacement joins as a new leader. Where those that stay would be no majority, this is refused.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := a.numbered(cmd, "leader", args, cluster)
			if err != nil {
				return err
			}
			if err := c.RemoveLeader(cmd.Context(), id, force); err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			_, err = fmt.Fprintf(a.stdout, "leader %d removed\n", id)
			return err
		},
	}
	addCluster(cmd, &cluster, clusterDefault)
	cmd.Flags().BoolVar(&force, "force", false, "remove it though those that stay may be no majority: writes then wait until one more lives")
	return cmd
}
