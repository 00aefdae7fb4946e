package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) caCommand() *cobra.Command {
	return a.groupCommand("ca", "The cluster's certificate authority: 'ca rotate' replaces it", a.rotateCommand())
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
