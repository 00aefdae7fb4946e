package cli

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/server"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// devDir is the default data directory of dev, in the folder of the user's state.
const devDir = "dev"

func (a *app) devCommand() *cobra.Command {
	cfg := server.EmbeddedConfig{Jobs: a.jobs}
	var logLevel, addressFile string
	var privileges bool
	var resources []string
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a leader and workers in one foreground process", Args: noArgs,
		Example: "  bridgefour dev --workers 4 --slots 1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Workers < 1 || cfg.Slots < 0 || cfg.Slots == 0 && a.typed["slots"] {
				return usagef(cmd, "--workers and --slots must be at least 1")
			}
			err := transport.CheckListen(cfg.Listen)
			if err != nil {
				return usagef(cmd, "--listen: %v", err)
			}
			if err := checkOpen(cmd, cfg.Listen, cfg.Insecure, ""); err != nil {
				return err
			}
			if cfg.Resources, err = workerResources(cmd, "resource", resources); err != nil {
				return err
			}
			a.addDevices(cfg.Resources, devFolder)
			if cfg.Logger, err = a.logger(logLevel); err != nil {
				return err
			}
			if cfg.DataDir, err = a.serverDir(cfg.DataDir, devDir); err != nil {
				return err
			}
			cfg.Socket = filepath.Join(cfg.DataDir, node.SocketName)
			cfg.Confinement.NoNewPrivileges = noNewPrivileges(privileges)
			cfg.Version, cfg.Reserved = a.versionText(), plan.Reserved{What: "the data directory of dev", Dir: cfg.DataDir}
			warnInsecure(cfg.Logger, cfg.Listen, cfg.Insecure)
			ctx := cmd.Context()
			e, err := server.OpenEmbedded(ctx, cfg)
			if err != nil {
				return explainServe(err, cfg.Listen, cfg.DataDir)
			}
			if err := writeAddress(addressFile, transport.Loopback(e.Addr())); err != nil {
				return errors.Join(err, e.Close())
			}
			url := transport.URL(transport.Loopback(e.Addr()))
			a.stderr.Printf("bridgefour listens on %s, with %s; Ctrl-C ends it\n"+
				"  API  %s/docs\n"+
				"  try  bridgefour submit%s --range 1-10 --wait -- echo hello",
				url, plural(uint64(cfg.Workers), "worker"), url, a.devCluster(url, cfg.DataDir))
			return e.Run(ctx)
		},
	}
	cmd.Flags().StringVar(&cfg.DataDir, "data-dir", "", "`folder` of the log and the workers (default $XDG_STATE_HOME/bridgefour/dev)")
	cmd.Flags().StringVar(&cfg.Listen, "listen", listenDefault, "`address` for clients and workers; port 0: any free one")
	cmd.Flags().IntVar(&cfg.Workers, "workers", 2, "how many workers")
	cmd.Flags().IntVar(&cfg.Slots, "slots", 0, "slots of each worker (default: the CPUs, shared evenly)")
	addResources(cmd.Flags(), "resource", &resources)
	addAllowPrivileges(cmd, &privileges)
	addNice(cmd, &cfg.Nice, niceServer)
	addAllowedHost(cmd, &cfg.Hosts)
	addInsecure(cmd, &cfg.Insecure)
	addAddressFile(cmd, &addressFile)
	addLogLevel(cmd, &logLevel, "warn")
	return cmd
}

// devCluster is the --cluster flag that clients need, if any.
func (a *app) devCluster(url, dataDir string) string {
	if found, err := a.serverDir("", devDir); url == clusterDefault || err == nil && dataDir == found {
		return ""
	}
	return " --cluster " + url
}
