package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/server"
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
another cluster. Workers reconnect by themselves.

The data directory of 'bridgefour dev' holds that of its leader; both can be given.`,
		RunE: func(*cobra.Command, []string) error {
			dir, err := a.serverDir(dataDir, "leader")
			if err != nil {
				return err
			}
			log, next, err := a.findLog(dir)
			if errors.Is(err, os.ErrPermission) {
				return fmt.Errorf("%w: run the command as the user of that leader", err)
			}
			if err != nil {
				return err
			}
			name := ""
			got, err := replica.Recover(log, func(former string) string {
				name = cmp.Or(node.ClusterNameOf(former), server.ClusterName)
				return node.NewClusterID(name)
			})
			if err != nil {
				return err
			}
			if name != server.ClusterName {
				next += " --cluster-name " + name
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
			text += fmt.Sprintf("next: %s\n", next)
			_, err = fmt.Fprint(a.stdout, text)
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "`folder` of the leader (default $XDG_STATE_HOME/bridgefour/leader)")
	return cmd
}

// findLog returns the log of a leader in dir, or in the leader's folder of an embedded cluster, and the command that starts it.
func (a *app) findLog(dir string) (log, next string, err error) {
	embedded := dir
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return "", "", fmt.Errorf("%s is not the data directory of a leader: it is a file; name a leader's with --data-dir", dir)
	}
	if filepath.Base(dir) == "leader" {
		embedded = filepath.Dir(dir)
	}
	log = filepath.Join(embedded, "leader", "log")
	switch used, err := replica.InUse(log); {
	case err != nil:
		return "", "", err
	case used && exists(filepath.Join(embedded, "run.json")):
		run := runDir{path: embedded}
		run.readInfo()
		return log, run.info.continues() + " run --resume " + filepath.Base(embedded), nil
	case used && exists(filepath.Join(embedded, "worker-1")):
		return log, a.program + " dev --data-dir " + placeholder.Quote(embedded), nil
	}
	log = filepath.Join(dir, "log")
	if used, err := replica.InUse(log); used || err != nil {
		return log, a.program + " leader --data-dir " + placeholder.Quote(dir), err
	}
	why := "it does not exist"
	switch {
	case exists(filepath.Join(dir, "identity")):
		why = "it is that of a worker, which has nothing to recover: a worker finds the recovered leader by itself"
	case exists(dir):
		why = "there is no log in it"
	}
	return "", "", fmt.Errorf("%s is not the data directory of a leader: %s; name a leader's with --data-dir", dir, why)
}

// exists reports whether there is a file or folder of that name.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
