package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/access"
)

func (a *app) caCommand() *cobra.Command {
	return a.groupCommand("ca", "The cluster's certificate authority: 'ca rotate' replaces it, 'ca key' makes the key of a new cluster", a.rotateCommand(), a.keyCommand())
}

func (a *app) keyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "Make the key of a new cluster of several leaders", Args: noArgs,
		Long: `Make a cluster key, and print it. Leaders that start a cluster together with --peers need the same one:

  bridgefour ca key > cluster.key
  bridgefour leader --peers 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT --id 1 --cluster-key cluster.key

It opens everything: copy it to the machines of the leaders only, and over a secure connection. Each leader keeps it as cluster.key in its data
directory. If standard output is a file, its permissions are set to 0600.`,
		RunE: func(*cobra.Command, []string) error {
			if f, ok := a.stdout.(*os.File); ok {
				if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
					if err := f.Chmod(0o600); err != nil {
						return err
					}
				}
			}
			key := access.NewKey()
			_, err := fmt.Fprintln(a.stdout, key.Text())
			return err
		},
	}
}

func (a *app) rotateCommand() *cobra.Command {
	var r readFlags
	cmd := &cobra.Command{
		Use: "rotate", Short: "Make a new certificate authority, without an interruption", Args: noArgs,
		Long: `Make a new certificate authority. It issues all certificates from now on: those of leaders at once, those of workers when they are next
renewed, within half a day. Certificates of the one before are accepted for a day. It certifies the new one, so strings of 'token create' and
the access of users remain valid.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			authority, err := c.RotateAuthority(cmd.Context())
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			if r.json {
				return printJSON(a.stdout, authority)
			}
			_, err = fmt.Fprintf(a.stdout, "authority %d issues certificates now, until %s\n", authority.Number, authority.Expires.Format("2006-01-02"))
			return err
		},
	}
	r.add(cmd)
	return cmd
}
