package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/server"
	"github.com/bridgefour/bridgefour/internal/transport"
)

func (a *app) caCommand() *cobra.Command {
	return a.groupCommand("ca", "The cluster's certificate authority: 'ca rotate' replaces it, 'ca key' makes the key of a new cluster, and 'ca join' the string of its workers",
		a.rotateCommand(), a.keyCommand(), a.firstJoinCommand())
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
			key := access.NewKey()
			return a.printSecret(key.Text())
		},
	}
}

// printSecret prints a secret. If standard output is a file, no other user can read it.
func (a *app) printSecret(text string) error {
	if f, ok := a.stdout.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			if err := f.Chmod(0o600); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintln(a.stdout, text)
	return err
}

func (a *app) firstJoinCommand() *cobra.Command {
	var keyFile, peerList, name string
	cmd := &cobra.Command{
		Use: "join --cluster-key FILE --peers LIST", Short: "Print the string by which workers join a new cluster, before it runs", Args: noArgs,
		Long: `Print the string for 'worker --join' of a new cluster whose leaders are started with this --cluster-key and these --peers (one is enough), so that leaders
and workers can be started together, as a container system does:

  bridgefour ca key > cluster.key
  bridgefour ca join --cluster-key cluster.key --peers 1=HOST:PORT > worker.join
  bridgefour leader --cluster-key cluster.key --peers 1=HOST:PORT --id 1
  bridgefour worker --join @worker.join

Its token has no end. 'bridgefour token revoke' ends it as any other, and 'ca rotate --key' does, too.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keyFile == "" || peerList == "" {
				return usagef(cmd, "ca join needs --cluster-key and --peers, as the leaders have them")
			}
			key, err := readClusterKey(cmd, keyFile)
			if err != nil {
				return err
			}
			peers, err := parsePeers(peerList)
			if err != nil {
				return usagef(cmd, "--peers: %v", err)
			}
			cluster := peersClusterID(name, peers, false)
			authority, err := access.FirstAuthority(*key, cluster, time.Now())
			if err != nil {
				return err
			}
			j := transport.Join{Authority: new(transport.PinOf(authority.Certificate()))}
			for _, p := range peers {
				j.Addresses = append(j.Addresses, p.Address)
			}
			_, j.Token = access.FirstToken(*key, cluster)
			return a.printSecret(j.String())
		},
	}
	cmd.Flags().StringVar(&keyFile, "cluster-key", "", "`file` with the key of the cluster")
	markSecretFile(cmd, "cluster-key", "")
	cmd.Flags().StringVar(&peerList, "peers", "", "the leaders: `ID=HOST:PORT,…`")
	cmd.Flags().StringVar(&name, "cluster-name", server.ClusterName, "`name` of the cluster")
	return cmd
}

func (a *app) rotateCommand() *cobra.Command {
	var r readFlags
	var key, now bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Make a new certificate authority, or also a new cluster key, without an interruption", Args: noArgs,
		Long: `Make a new certificate authority. It issues all certificates from now on: those of leaders at once, those of workers when they are next
renewed, within half a day. Certificates of the one before are accepted for a day. It certifies the new one, so strings of 'token create' and
the access of users remain valid.

With --key the cluster key is replaced too: after a leader was removed, or a data directory or cluster.key was copied. Remove that leader first, because what
its own key.pem opens is revoked by that only. All other leaders must be connected: they get the key from the one that leads. Secrets of jobs are
sealed under it. All machines get new certificates at once, and when all have, those by the former key are refused; one that is away holds that up,
for a day at most. Who has the former key could until then use a certificate that he made himself, and can always pretend to be a leader to those
who only know strings and accesses that were made before: make new ones.

With --key --now certificates by the former key are refused as soon as the machines that are connected have new ones. Workers that are away, and
users, must join and log in again, with new strings. A leader's user needs none on its machine.

Tokens are not affected: if the data directory had admin.access, revoke that token (ID in 'token list') as well.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if now && !key {
				return usagef(cmd, "--now goes with --key: certificates of the same cluster key are accepted until they expire")
			}
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			rotate, what := c.RotateAuthority, ""
			if key {
				rotate = func(ctx context.Context) (api.Authority, error) { return c.RotateKey(ctx, now) }
				what = ", of a new cluster key"
			}
			authority, err := rotate(cmd.Context())
			return a.answer(cmd.Context(), err, authority, r.json, "authority %d issues certificates now, until %s%s\n", authority.Number,
				authority.Expires.Format("2006-01-02"), what)
		},
	}
	r.add(cmd)
	cmd.Flags().BoolVar(&key, "key", false, "replace the cluster key too")
	cmd.Flags().BoolVar(&now, "now", false, "with --key: refuse certificates by the former key at once; workers that are away, and users, join and log in again")
	return cmd
}
