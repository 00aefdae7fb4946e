package cli

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// devDir is the default data directory of dev, in the folder of the user's state.
const devDir = "dev"

func (a *app) devCommand() *cobra.Command {
	cfg := embeddedConfig{}
	var logLevel, addressFile string
	var privileges bool
	var resources []string
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a leader and workers in one foreground process", Args: noArgs,
		Example: "  bridgefour dev --workers 4 --slots 1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.workers < 1 || cfg.slots < 0 || cfg.slots == 0 && a.typed["slots"] {
				return usagef(cmd, "--workers and --slots must be at least 1")
			}
			err := transport.CheckListen(cfg.listen)
			if err != nil {
				return usagef(cmd, "--listen: %v", err)
			}
			if err := checkOpen(cmd, cfg.listen, cfg.insecure, ""); err != nil {
				return err
			}
			if cfg.resources, err = workerResources(cmd, "resource", resources); err != nil {
				return err
			}
			a.addDevices(cfg.resources, devFolder)
			if cfg.logger, err = a.logger(logLevel); err != nil {
				return err
			}
			if cfg.dataDir, err = a.serverDir(cfg.dataDir, devDir); err != nil {
				return err
			}
			cfg.socket = filepath.Join(cfg.dataDir, node.SocketName)
			cfg.confinement.NoNewPrivileges = noNewPrivileges(privileges)
			cfg.version, cfg.reserved = a.versionText(), plan.Reserved{What: "the data directory of dev", Dir: cfg.dataDir}
			warnInsecure(cfg.logger, cfg.listen, cfg.insecure)
			ctx := cmd.Context()
			e, err := openEmbedded(ctx, cfg)
			if err != nil {
				return explainServe(err, cfg.listen, cfg.dataDir)
			}
			if err := writeAddress(addressFile, loopback(e.node.Address())); err != nil {
				return errors.Join(err, e.close())
			}
			url := transport.URL(loopback(e.node.Address()))
			a.stderr.Printf("bridgefour listens on %s, with %s; Ctrl-C ends it\n"+
				"  API  %s/docs\n"+
				"  try  bridgefour submit%s --range 1-10 --wait -- echo hello",
				url, plural(uint64(cfg.workers), "worker"), url, a.devCluster(url, cfg.dataDir))
			return e.run(ctx)
		},
	}
	cmd.Flags().StringVar(&cfg.dataDir, "data-dir", "", "`folder` of the log and the workers (default $XDG_STATE_HOME/bridgefour/dev)")
	cmd.Flags().StringVar(&cfg.listen, "listen", listenDefault, "`address` for clients and workers; port 0: any free one")
	cmd.Flags().IntVar(&cfg.workers, "workers", 2, "how many workers")
	cmd.Flags().IntVar(&cfg.slots, "slots", 0, "slots of each worker (default: the CPUs, shared evenly)")
	addResources(cmd.Flags(), "resource", &resources)
	addAllowPrivileges(cmd, &privileges)
	addNice(cmd, &cfg.nice, niceServer)
	addAllowedHost(cmd, &cfg.hosts)
	addInsecure(cmd, &cfg.insecure)
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
