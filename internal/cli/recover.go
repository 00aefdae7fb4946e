package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/replica"
)

func (a *app) recoverCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use: "recover", Short: "Make a cluster of one from what a lost quorum has left", Args: noArgs,
		Long: `Make a cluster of one from the data directory of one leader, when so many of the others are gone for good that no
majority is left. Run it once, while no leader runs, on the leader that has the highest log position (it prints it); then start that
leader as ever, and let new ones join it.

What was acknowledged is kept as far as this leader has it. What only the lost leaders had is lost: with 3 leaders and one left,
that can be the last moments before the loss. The other old data directories must not be started again: they would be another
cluster. Workers come back by themselves.`,
		RunE: func(*cobra.Command, []string) error {
			dir, err := a.serverDir(dataDir, "leader")
			if err != nil {
				return err
			}
			got, err := replica.Recover(filepath.Join(dir, "log"), func(former string) string {
				return clusterName(former) + "-" + randomID()
			})
			if err != nil {
				return err
			}
			text := fmt.Sprintf("leader %d is a cluster of one now, with all it has: log position %d\n", got.ID, got.Last)
			if len(got.Dropped) > 0 {
				var gone []string
				for _, m := range got.Dropped {
					gone = append(gone, fmt.Sprintf("%d (%s)", m.ID, orDash(m.Address)))
				}
				text += fmt.Sprintf("no members any more: leaders %s; do not start their data directories again\n", strings.Join(gone, ", "))
			}
			text += fmt.Sprintf("the cluster is %s now; it was %s\n", got.Cluster, got.Former)
			text += fmt.Sprintf("next: bridgefour leader --data-dir %s\n", dir)
			_, err = fmt.Fprint(a.stdout, text)
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "`folder` of the leader (default $XDG_STATE_HOME/bridgefour/leader)")
	return cmd
}
