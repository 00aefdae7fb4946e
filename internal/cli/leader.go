package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) leaderCommand() *cobra.Command {
	var dataDir, listen, advertise, logLevel, addressFile string
	cmd := &cobra.Command{
		Use: "leader", Aliases: []string{"kaladin"}, Short: "Run the leader of a cluster", Args: noArgs,
		Long: `Run the leader of a cluster. On an empty data directory it begins a new cluster.

SIGTERM and Ctrl-C end it in order, a second one at once. Running tasks go on and report to the next leader over the same
data directory.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// LEADER_ID and the STANDBY_LEADER_ variables are about several leaders, the WORKER ones about dialing workers: here
			// the workers dial.
			if err := a.fromContainer(cmd, "listen", a.hostPort("BRIDGEFOUR_HOST", "BRIDGEFOUR_PORT", "127.0.0.1", "6550")); err != nil {
				return err
			}
			logger, err := a.logger(logLevel)
			if err != nil {
				return err
			}
			dir, err := a.serverDir(dataDir, "leader")
			if err != nil {
				return err
			}
			warnOpen(logger, listen)
			ctx := cmd.Context()
			n, err := openNode(ctx, nodeConfig{dataDir: dir, listen: listen, version: a.versionText(), logger: logger})
			if err != nil {
				return explainServe(err, listen, dir)
			}
			if advertise == "" {
				advertise = loopback(n.address())
			}
			if err := tellAddress(addressFile, loopback(n.address())); err != nil {
				return errors.Join(err, n.close())
			}
			logger.Info("leader listens", "address", n.address().String(), "url", "http://"+advertise, "data_dir", dir,
				"version", a.versionText())
			err = n.run(ctx)
			logger.Info("leader ended")
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "`folder` of the log (default $XDG_STATE_HOME/bridgefour/leader)")
	cmd.Flags().StringVar(&listen, "listen", listenDefault, "`address` for clients and workers; port 0: any free one")
	cmd.Flags().StringVar(&advertise, "advertise", "", "`address` that others are told (default: what it listens on)")
	addAddressFile(cmd, &addressFile)
	addLogLevel(cmd, &logLevel, "info")
	return cmd
}
