package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// clusterAccess returns the leaders that --cluster names, and the access to them: that of the context with this name, or of one that lists
// the leader. A token is sent nowhere else. Without --cluster it is the current context; nil: there is none.
func clusterAccess(cluster string) (urls []string, access *client.Access, err error) {
	if cluster == "" {
		if access, err = client.DefaultAccess(); err != nil {
			return nil, nil, usagef(nil, "%v", err)
		}
		return nil, access, nil
	}
	f, err := client.DefaultAccessFile()
	if err != nil {
		return nil, nil, usagef(nil, "%v", err)
	}
	if c, ok := f.Contexts[cluster]; ok {
		return nil, &c, nil
	}
	urls = strings.Split(cluster, ",")
	for _, name := range slices.Sorted(maps.Keys(f.Contexts)) {
		c := f.Contexts[name]
		if !slices.ContainsFunc(urls, func(url string) bool { return !slices.Contains(bareAddresses(c.Cluster), bareAddress(url)) }) && (access == nil || name == f.Current) {
			access = &c
		}
	}
	return urls, access, nil
}

// bareAddress is the host:port of a URL.
func bareAddress(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	return strings.TrimRight(url, "/")
}

func bareAddresses(urls []string) (list []string) {
	for _, url := range urls {
		list = append(list, bareAddress(url))
	}
	return list
}

func (a *app) loginCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "login STRING", Short: "Store the access to a cluster, from a string of 'token create', an access file, or an address",
		Long: `Store the access to a cluster in $XDG_CONFIG_HOME/bridgefour/access.yaml, and make it the current context, which all commands use
unless --cluster names another. STRING is what 'bridgefour token create' has printed, or the path of an access file; - reads it from
standard input, so that it is not in the list of processes. It is stored once the cluster has accepted it.

If the leaders have certificates of an outside authority, such as a company's, STRING can be HOST:PORT of one of them, or several, separated by
commas, with --tls-ca FILE, or https://HOST:PORT for the authorities of the system; and --tls-cert and --tls-key say who you are. The access has the
names of these files.

BRIDGEFOUR_ACCESS, with such a string, a path, or the text of an access file, takes precedence: in containers and CI no login is needed.`,
		Args: oneArg("a string of 'bridgefour token create', an access file, HOST:PORT, or -"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.login(cmd, args[0], name) },
	}
	cmd.Flags().StringVar(&name, "name", "", "`name` of the context (default: that of the cluster)")
	addClientOutside(cmd)
	return cmd
}

func (a *app) login(cmd *cobra.Command, given, name string) error {
	access, err := a.givenAccess(cmd, given)
	if err != nil {
		return err
	}
	c, err := client.New(nil, client.Options{Access: access, OnReconnect: a.reportReconnect})
	if err != nil {
		return usagef(cmd, "%v", err)
	}
	who, err := c.Identity(cmd.Context())
	if err != nil {
		return orInterrupted(cmd.Context(), err)
	}
	if name == "" {
		name = who.Cluster
	}
	return a.changeAccess(func(f *client.AccessFile) error {
		for base, n := name, 2; ; n++ {
			if known, ok := f.Contexts[name]; !ok || known.Authority == access.Authority && reflect.DeepEqual(known.Cluster, access.Cluster) {
				break
			}
			name = fmt.Sprintf("%s-%d", base, n)
		}
		f.Contexts[name], f.Current = *access, name
		text := fmt.Sprintf("logged in to %s with role %s", name, who.Role)
		if who.User != "" {
			text = fmt.Sprintf("logged in to %s as user %s with role %s", name, printable(who.User), who.Role)
		}
		if who.Expires != nil {
			text += ", until " + who.Expires.Local().Format("2006-01-02 15:04")
		}
		_, err := fmt.Fprintln(a.stdout, text)
		return err
	})
}

// givenAccess reads the argument of login.
func (a *app) givenAccess(cmd *cobra.Command, given string) (*client.Access, error) {
	if a.outside != (transport.Files{}) && transport.IsJoin(given) {
		return nil, usagef(cmd, "the string names the authority of the cluster, and --tls-ca or --tls-cert another: use one of them")
	}
	if a.outside != (transport.Files{}) || strings.HasPrefix(given, transport.SchemeTLS+"://") {
		return withOutside(&client.Access{Cluster: strings.Split(given, ",")}, a.outside), nil
	}
	if given == "-" {
		const textMax = 1 << 20
		text, err := io.ReadAll(io.LimitReader(a.stdin, textMax))
		if err != nil {
			return nil, err
		}
		given = string(text)
	}
	f, err := client.ReadAccess(given)
	if err != nil {
		return nil, usagef(cmd, "%v", err)
	}
	c, ok := f.Contexts[f.Current]
	if !ok {
		return nil, usagef(cmd, "the access file has no current context")
	}
	return &c, nil
}

// changeAccess changes the access file of this user.
func (a *app) changeAccess(change func(*client.AccessFile) error) error {
	path, err := client.AccessPath()
	if err != nil {
		return err
	}
	var f client.AccessFile
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		if f, err = client.ParseAccess(string(text)); err != nil {
			return fmt.Errorf("%s: %w; correct or remove it", path, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if f.Contexts == nil {
		f.Contexts = map[string]client.Access{}
	}
	if err := change(&f); err != nil {
		return err
	}
	if text, err = yaml.Marshal(f); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := datadir.WriteFile(path, text); err != nil {
		return err
	}
	if given, ok := a.env(client.AccessEnv); ok && given != "" {
		a.stderr.Printf("note: %s is set, and takes precedence over %s", client.AccessEnv, path)
	}
	return nil
}

// leadersSaver returns a function that stores the leaders of a cluster in its contexts, if login has stored the access there; nil: it has not.
func (a *app) leadersSaver(access *client.Access) func(addresses []string) {
	if given, ok := a.env(client.AccessEnv); access == nil || access.Authority == "" || ok && given != "" {
		return nil
	}
	return func(addresses []string) {
		if slices.Equal(access.Cluster, addresses) {
			return
		}
		err := a.changeAccess(func(f *client.AccessFile) error {
			for name, c := range f.Contexts {
				if c.Authority == access.Authority && c.Token == access.Token {
					c.Cluster = addresses
					f.Contexts[name] = c
				}
			}
			return nil
		})
		if err != nil {
			a.stderr.Printf("note: the addresses of the leaders have changed, and are not stored: %v", err)
		}
	}
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout [CONTEXT]", Short: "Forget the access to a cluster (default: the current context)", Args: optionalArg("the name of a context"),
		Long: `Forget the access to a cluster. Its token is still valid: 'bridgefour token revoke ID' of an admin ends that.`,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeAccess(func(f *client.AccessFile) error {
				name := append(args, f.Current)[0]
				if err := knownContext(f, name); err != nil {
					return err
				}
				if delete(f.Contexts, name); f.Current == name {
					f.Current = ""
				}
				_, err := fmt.Fprintf(a.stdout, "logged out of %s\n", name)
				return err
			})
		},
	}
}

// knownContext returns an error unless there is a context of that name.
func knownContext(f *client.AccessFile, name string) error {
	if _, ok := f.Contexts[name]; ok {
		return nil
	}
	names := slices.Sorted(maps.Keys(f.Contexts))
	switch {
	case len(names) == 0:
		return usagef(nil, "there is no context: 'bridgefour login STRING' makes one")
	case name == "":
		return usagef(nil, "no context is current: name one of %s", strings.Join(names, ", "))
	}
	return usagef(nil, "there is no context %q, only %s%s", name, strings.Join(names, ", "), didYouMean(name, names))
}

func (a *app) contextCommand() *cobra.Command {
	return a.groupCommand("context", "List the clusters that you are logged in to, or choose one: 'context list', 'context use NAME'",
		&cobra.Command{
			Use: "list", Short: "List the contexts; * marks the current one", Args: noArgs,
			Example: "  bridgefour context list",
			RunE:    func(*cobra.Command, []string) error { return a.printContexts() },
		},
		&cobra.Command{
			Use: "use NAME", Short: "Make a context the current one", Args: oneArg("the name of a context, which 'bridgefour context list' shows"),
			Example: "  bridgefour context use lab",
			RunE: func(_ *cobra.Command, args []string) error {
				return a.changeAccess(func(f *client.AccessFile) error {
					f.Current = args[0]
					return knownContext(f, args[0])
				})
			},
		})
}

func (a *app) printContexts() error {
	f, err := client.DefaultAccessFile()
	if err != nil {
		return err
	}
	if len(f.Contexts) == 0 {
		a.stderr.Printf("no contexts; 'bridgefour login STRING' makes one")
		return nil
	}
	t := newTable(a.stdout, "", "CONTEXT", "CLUSTER", "TOKEN OR CERTIFICATE")
	for _, name := range slices.Sorted(maps.Keys(f.Contexts)) {
		mark := ""
		if name == f.Current {
			mark = "*"
		}
		c := f.Contexts[name]
		id, _, _ := strings.Cut(c.Token, "_")
		t.row(mark, name, strings.Join(c.Cluster, ","), orDash(cmp.Or(id, c.TLSCertificate)))
	}
	return t.flush()
}
