package cli

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

func (a *app) leadersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "leaders", Short: "List the leaders; 'leaders add ADDR' and 'leaders remove ID' change the membership",
		Long: `List the leaders of a cluster and their roles. The cluster needs a majority of its voters: 3 leaders tolerate the loss of
one, 5 of two.`,
		Args: a.unknownCommand,
	}
	cmd.AddCommand(a.addLeaderCommand(), a.removeLeaderCommand())
	return readCommand(a, cmd, client.LeadersPath, (*client.Client).Leaders, a.printLeaders)
}

func (a *app) printLeaders(list api.LeaderList) error {
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
	var r readFlags
	cmd := &cobra.Command{
		Use: "add ADDR", Short: "Add the fresh leader at host:port to this cluster",
		Long: `Add the leader at host:port to this cluster. It must be fresh: started on an empty data directory and unused. It becomes a
voter once it has caught up.

'bridgefour leader --join ADDR' on the new machine does the same from there.`,
		Args: oneArg("the host:port of a fresh leader"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			node, err := c.AddLeader(cmd.Context(), args[0])
			text := "is joining: it votes once it has caught up"
			if node.Votes {
				text = "is a leader of this cluster"
			}
			return a.answer(cmd.Context(), err, node, r.json, "leader %d at %s %s\n", node.ID, node.Address, text)
		},
	}
	r.add(cmd)
	return cmd
}

func (a *app) removeLeaderCommand() *cobra.Command {
	var cluster string
	var force bool
	cmd := &cobra.Command{
		Use: "remove ID", Short: "Remove a leader from the cluster, alive or dead", Args: oneArg("a leader's number"),
		Long: `Remove a leader from the cluster, alive or dead. Its number is never used again and its data directory cannot rejoin: a
replacement joins as a new leader. Refused when the remaining leaders would have no majority.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := a.numbered(cmd, "leader", args, cluster)
			if err != nil {
				return err
			}
			list, _ := c.Leaders(cmd.Context()) // for the note alone
			if err := c.RemoveLeader(cmd.Context(), id, force); err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			if i := slices.IndexFunc(list.Leaders, func(l api.LeaderNode) bool { return l.ID == id }); i >= 0 {
				a.noteToken(list.Leaders[i].Token)
			}
			text := fmt.Sprintf("leader %d removed\n", id)
			if c, err := c.Cluster(cmd.Context()); err == nil && c.Encrypted {
				text += "it had the cluster key: if others may read its data directory, run 'bridgefour ca rotate --key'\n"
			}
			_, err = fmt.Fprint(a.stdout, text)
			return err
		},
	}
	addCluster(cmd, &cluster)
	cmd.Flags().BoolVar(&force, "force", false, "remove it even if the rest has no majority: writes then wait until one more leader is up")
	return cmd
}
