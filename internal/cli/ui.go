package cli

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) uiCommand() *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use: "ui", Short: "Open the cluster's web page", Args: noArgs,
		Long: `Print a URL that lets a browser in, once and within a minute, and open it if there is a display. The browser then is what
this command is to the cluster, for 12 hours or until the leader is restarted.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect(cluster, 0)
			if err != nil {
				return err
			}
			login, err := c.BrowserLogin(cmd.Context())
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			if _, err := fmt.Fprintln(a.stdout, login.URL); err != nil {
				return err
			}
			if opener := a.browserOpener(); opener != "" && term.IsTerminal(int(os.Stdout.Fd())) {
				if err := exec.CommandContext(cmd.Context(), opener, login.URL).Run(); err != nil {
					a.stderr.Printf("%s: %v; open the URL yourself", opener, err)
				}
			}
			return nil
		},
	}
	addCluster(cmd, &cluster)
	return cmd
}

// browserOpener is the command that opens a URL in the user's browser; empty: there is no display.
func (a *app) browserOpener() string {
	if runtime.GOOS == "darwin" {
		return "open"
	}
	for _, display := range []string{"DISPLAY", "WAYLAND_DISPLAY"} {
		if v, ok := a.env(display); ok && v != "" {
			return "xdg-open"
		}
	}
	return ""
}
