package cli

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/server"
	"github.com/bridgefour/bridgefour/internal/transport"
)

func (a *app) healthzCommand() *cobra.Command {
	var listen, addressFile string
	var ready bool
	cmd := &cobra.Command{
		Use: "healthz [ADDRESS]", Short: "Ask the leader or worker of this machine whether it serves; exit 0 if it does, else 1",
		Long: `Ask the leader or worker of this machine whether it serves, and exit with 0 if it does and 1 if it does not: the health check of a container or a service.
It is found as it listens: by --listen or --address-file, or the same in the environment (BRIDGEFOUR_LISTEN, BRIDGEFOUR_ADDRESS_FILE) or in --config FILE. ADDRESS,
host:port or unix:PATH, is another. Without any of them it is the dev or leader that commands without --cluster use.

A process that hangs does not serve. One that does may not be ready, because it has found no leader, or because too few leaders live: --ready wants that, too.`,
		Args: optionalArg("an address, host:port or unix:PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.fromContainer(cmd, "listen", a.hostPort("BRIDGEFOUR_HOST", "BRIDGEFOUR_PORT", "127.0.0.1", transport.DefaultPort)); err != nil {
				return err
			}
			address, err := a.healthAddress(cmd, args, listen, addressFile)
			if err != nil {
				return err
			}
			status, err := server.Health(cmd.Context(), address, ready)
			if err != nil {
				return &exitError{exitFailed, err}
			}
			_, err = fmt.Fprintln(a.stdout, status)
			return err
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&ready, "ready", false, "a worker must have a leader, and a leader must lead, or hear from the one that does")
	fs.StringVar(&listen, "listen", "", "the --listen `address` of the server")
	fs.StringVar(&addressFile, "address-file", "", "the --address-file `file` of the server")
	return cmd
}

// healthAddress returns the address of the server of this machine.
func (a *app) healthAddress(cmd *cobra.Command, args []string, listen, addressFile string) (string, error) {
	switch {
	case len(args) > 0:
		address, err := transport.ParseDial(args[0])
		if err != nil {
			return "", usagef(cmd, "%v", err)
		}
		return address, nil
	case addressFile != "":
		text, err := os.ReadFile(addressFile)
		if err != nil {
			return "", &exitError{exitFailed, fmt.Errorf("address file: %w: does the server run?", err)}
		}
		listen = strings.TrimSpace(string(text))
	case listen == "":
		return a.localCluster()
	}
	_, port, err := net.SplitHostPort(listen)
	switch {
	case err != nil:
		return "", usagef(cmd, "--listen: invalid address %q: want host:port", listen)
	case port == "0":
		return "", usagef(cmd, "--listen %s: the port is not known: start the server with --address-file FILE, and give the same file here", listen)
	case transport.IsUnspecified(listen):
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	return listen, nil
}
