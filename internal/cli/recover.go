package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/replica"
)

func (a *app) recoverCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use: "recover", Short: "Make a cluster of one from the data directory of a surviving leader", Args: noArgs,
		Long: `Make a cluster of one from the data directory of one leader after a majority of the leaders is permanently lost. Run it once,
while no leader runs, on the leader with the highest log position (it is printed); then start that leader as usual and let new
ones join it.

Acknowledged changes are kept as far as this leader has them. Changes that only the lost leaders had are lost: with one of 3
leaders left, that can be the last moments before the loss. Do not start the other old data directories again: they would form
another cluster. Workers reconnect by themselves.`,
		RunE: func(*cobra.Command, []string) error {
			dir, err := a.serverDir(dataDir, "leader")
			if err != nil {
				return err
			}
			got, err := replica.Recover(filepath.Join(dir, "log"), func(former string) string {
				return node.NewClusterID(node.ClusterNameOf(former))
			})
			if err != nil {
				return err
			}
			text := fmt.Sprintf("leader %d is now a cluster of one at log position %d\n", got.ID, got.Last)
			if len(got.Dropped) > 0 {
				var gone []string
				for _, m := range got.Dropped {
					gone = append(gone, fmt.Sprintf("%d (%s)", m.ID, orDash(m.Address)))
				}
				text += fmt.Sprintf("no longer members: leaders %s; do not start their data directories again\n", strings.Join(gone, ", "))
			}
			text += fmt.Sprintf("the cluster is now %s; it was %s\n", got.Cluster, got.Former)
			text += fmt.Sprintf("next: bridgefour leader --data-dir %s\n", dir)
			_, err = fmt.Fprint(a.stdout, text)
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "`folder` of the leader (default $XDG_STATE_HOME/bridgefour/leader)")
	return cmd
}
