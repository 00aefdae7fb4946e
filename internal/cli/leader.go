package cli

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/server"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// clusterNamePattern matches valid cluster names.
var clusterNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// leaderDir is the default data directory of a leader, in the folder of the user's state.
const leaderDir = "leader"

// leaderFlags are the flags of leader: those that are fields of its configuration, and the others.
type leaderFlags struct {
	node.ProcessConfig

	peerList    string
	joinList    string
	keyFile     string
	addressFile string
	logLevel    string

	contained bool // the peers come from the environment of the original system's containers
}

func (a *app) leaderCommand() *cobra.Command {
	var f leaderFlags
	cmd := &cobra.Command{
		Use: "leader", Aliases: []string{"kaladin"}, Short: "Run one leader of a cluster of 1, 3 or 5", Args: noArgs,
		Long: `Run one leader of a cluster of 1, 3 or 5. On an empty data directory it starts

  a new cluster of one       without further flags
  a new cluster of several   with --peers 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT, the same list on each, its own --id, and beyond one machine --cluster-key
                             FILE, the same key of 'bridgefour ca key' on each
  as one more leader         of a running cluster, with --join STRING of 'bridgefour token create --role leader'; or --join HOST:PORT of any of its
                             leaders, if they are on this machine, or were started with --insecure, or, with --tls-ca, --tls-cert and --tls-key, if they
                             have certificates of an outside authority

A leader that listens beyond this machine encrypts its connections. The first one (of --peers: that which first leads) makes the certificate authority of the
cluster, and writes the access of an admin, for 'bridgefour login', to admin.access in its data directory. Others enter by strings of 'bridgefour token create'. On the machine of a leader
its user needs no access, and can make a new one: 'bridgefour token create --role admin --cluster unix:FOLDER/leader.sock'.

On a data directory that is in use the leader resumes its role; these flags then have no effect.

SIGTERM and Ctrl-C stop it cleanly, after it has handed over leadership; a second signal stops it at once. Running tasks
continue and report to the next leader.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runLeader(cmd, &f) },
	}
	f.add(cmd)
	return cmd
}

func (f *leaderFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.DataDir, "data-dir", "", "`folder` of the log (default $XDG_STATE_HOME/bridgefour/leader)")
	fs.StringVar(&f.Listen, "listen", listenDefault, "`address` for clients, workers and leaders; port 0: any free one")
	fs.StringVar(&f.Advertise, "advertise", "", "`address` announced to others (default: its own of --peers, or the listen address)")
	fs.Uint64Var(&f.ID, "id", 0, "`number` of this leader (default: the one of --peers with its address, else 1, or assigned by the cluster)")
	fs.StringVar(&f.peerList, "peers", "", "the leaders of a new cluster: `ID=HOST:PORT,…`")
	fs.StringVar(&f.joinList, "join", "", "`string` of 'bridgefour token create --role leader', or @FILE that has it, with which the leader joins a cluster; or addresses of leaders, if they are on this machine or insecure, or with --tls-ca")
	fs.StringVar(&f.keyFile, "cluster-key", "", "`file` with the key of a new cluster, as 'bridgefour ca key' prints it; cluster.key in the data directory counts too")
	markSecretFile(cmd, "cluster-key", "")
	markSecretFile(cmd, "join", "@")
	fs.StringVar(&f.ClusterName, "cluster-name", server.ClusterName, "`name` of the cluster: leaders and workers of clusters with different names refuse each other")
	fs.StringVar(&f.Spool, "spool", "", "shared `folder` for the outputs of jobs without --output (default: spool in the data directory)")
	fs.StringVar(&f.AuditFile, "audit-file", "", "`file` to which a line of JSON is appended for each change and each refused request: who, from where, what, and the verdict")
	addAllowedHost(cmd, &f.Hosts)
	addInsecure(cmd, &f.Insecure)
	addOutside(cmd, "the outside authority, such as a company's, of certificates by which clients tell who they are (CN=USER, O=bridgefour:ROLE), and of leaders to "+
		"join; read again when it changes",
		"a certificate of an outside authority, with its chain, for browsers and other clients, and to join by (O=bridgefour:leader); read again when it changes")
	addAddressFile(cmd, &f.addressFile)
	addLogLevel(cmd, &f.logLevel, "info")
}

func (a *app) runLeader(cmd *cobra.Command, f *leaderFlags) error {
	if err := a.leaderFromContainer(cmd, f); err != nil {
		return err
	}
	logger, err := a.logger(f.logLevel)
	if err != nil {
		return err
	}
	if err := a.resolveLeader(cmd, f); err != nil {
		return err
	}
	if !f.Insecure && !transport.IsLoopback(f.Listen) && len(f.Peers) > 1 && f.ClusterKey == nil && !exists(filepath.Join(f.DataDir, node.ClusterKeyFile)) {
		return usagef(cmd, "--listen %s with --peers, and no key by which the leaders recognize each other: make one with 'bridgefour ca key >cluster.key', copy it to "+
			"each of their machines, and start each with --cluster-key cluster.key; or add --insecure (BRIDGEFOUR_INSECURE=1) to each, if only machines that you "+
			"trust can reach them", f.Listen)
	}
	cfg := f.ProcessConfig
	cfg.Socket = filepath.Join(cfg.DataDir, node.SocketName)
	cfg.Logger, cfg.Version, cfg.Invitable = logger, a.versionText(), true
	warnInsecure(logger, cfg.Listen, cfg.Insecure)
	ctx := cmd.Context()
	for {
		n, err := server.OpenLeader(ctx, cfg, a.jobs, a.jobLabels())
		if err != nil {
			return orInterrupted(ctx, explainServe(err, cfg.Listen, cfg.DataDir))
		}
		if err := writeAddress(f.addressFile, transport.Loopback(n.Address())); err != nil {
			return errors.Join(err, n.Close())
		}
		logger.Info("leader listens", "address", n.Address().String(), "url", n.URL(), "data_dir", cfg.DataDir,
			"id", n.ID(), "cluster", cfg.ClusterName, "version", cfg.Version)
		ended := server.NotifySystemd(ctx, n.Address(), logger)
		err = n.Run(ctx)
		ended()
		if invited, ok := errors.AsType[*node.InvitedError](err); ok {
			logger.Info("invited to another cluster; joining it", "leaders", invited.Leaders)
			if err := node.LeaveCluster(cfg.DataDir, invited.Leaders); err != nil {
				return err
			}
			cfg.Listen = n.Address().String() // the address that was invited
			continue
		}
		logger.Info("leader ended")
		return err
	}
}

// resolveLeader checks the flags, and sets the fields of the configuration that follow from them.
func (a *app) resolveLeader(cmd *cobra.Command, f *leaderFlags) (err error) {
	if err := transport.CheckListen(f.Listen); err != nil {
		return usagef(cmd, "--listen: %v", err)
	}
	if err := a.readJoin(cmd, &f.joinList); err != nil {
		return err
	}
	if f.peerList != "" && f.joinList != "" {
		return usagef(cmd, "--peers starts a new cluster and --join enters a running one; use one of them")
	}
	if !clusterNamePattern.MatchString(f.ClusterName) {
		return usagef(cmd, "--cluster-name %q: want up to 63 letters, digits, dots, dashes and underscores", f.ClusterName)
	}
	if f.Advertise != "" {
		if f.Advertise, err = transport.ParseAddress(f.Advertise); err != nil {
			return usagef(cmd, "--advertise: %v", err)
		}
	}
	if f.Outside = a.outside; f.Insecure && (transport.IsJoin(f.joinList) || f.Outside != (transport.Files{})) {
		return usagef(cmd, "--insecure, and a --join string, --tls-cert or --tls-ca, which encrypt: use one of them")
	}
	if f.joinList != "" {
		j, err := server.ParseJoin(f.joinList, access.RoleLeader, f.Outside)
		if err != nil {
			return usagef(cmd, "--join: %v", err)
		}
		if f.Join = j.Addresses; j.Authority != nil || j.Outside != nil {
			f.Invitation = &j
		}
	}
	if f.peerList != "" {
		if err := a.resolvePeers(cmd, f); err != nil {
			return err
		}
	}
	if f.ClusterKey, err = readClusterKey(cmd, f.keyFile); err != nil {
		return err
	}
	if f.DataDir, err = a.serverDir(f.DataDir, leaderDir); err != nil {
		return err
	}
	if f.Spool != "" {
		f.Spool, err = a.serverDir(f.Spool, "")
	}
	return err
}

// readClusterKey reads --cluster-key; nil: it is not given.
func readClusterKey(cmd *cobra.Command, file string) (*access.Key, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // the flag is optional
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef(cmd, "--cluster-key: %v", err)
	}
	key, err := access.ParseKey(string(text))
	if err != nil {
		return nil, usagef(cmd, "--cluster-key: %s: %v", file, err)
	}
	return &key, nil
}

// resolvePeers parses --peers and finds this leader in it.
func (a *app) resolvePeers(cmd *cobra.Command, f *leaderFlags) (err error) {
	if f.Peers, err = parsePeers(f.peerList); err != nil {
		return usagef(cmd, "--peers: %v", err)
	}
	if len(f.Peers)%2 == 0 {
		a.stderr.Printf("warning: %d leaders tolerate no more failures than %d; use 1, 3 or 5", len(f.Peers), len(f.Peers)-1)
	}
	self := slices.IndexFunc(f.Peers, func(p replica.Member) bool {
		return p.ID == f.ID || f.ID == 0 && (p.Address == f.Listen || p.Address == f.Advertise)
	})
	if self < 0 {
		return usagef(cmd, "--peers %s does not contain this leader: set its --id", f.peerList)
	}
	f.ID = f.Peers[self].ID
	own := f.Peers[self].Address
	if f.Advertise == "" {
		f.Advertise = own
	}
	if !a.typed["listen"] && !cmd.Flags().Changed("listen") {
		f.Listen = own
	}
	f.ClusterID = peersClusterID(f.ClusterName, f.Peers, f.contained)
	return nil
}

// leaderFromContainer applies the environment variables of the original system's containers: LEADER_ID counts from 0, the other
// leaders are named as standby leaders, and the workers are invited.
func (a *app) leaderFromContainer(cmd *cobra.Command, f *leaderFlags) error {
	if err := a.fromContainer(cmd, "listen", a.hostPort("BRIDGEFOUR_HOST", "BRIDGEFOUR_PORT", "127.0.0.1", transport.DefaultPort)); err != nil {
		return err
	}
	if err := a.workersFromContainer(cmd, f); err != nil {
		return err
	}
	id, ok, err := a.numberOf(cmd, "LEADER_ID")
	if err != nil || !ok || cmd.Flags().Changed("id") {
		return err
	}
	own, err := a.containerAddress(cmd)
	if err != nil {
		return err
	}
	named := false // this leader is among its standbys
	leaders := map[uint64]string{}
	for i := 1; ; i++ {
		prefix := fmt.Sprintf("STANDBY_LEADER_%d_", i)
		address := a.hostPort(prefix+"HOST", prefix+"PORT", "localhost", transport.DefaultPort)
		other, ok, err := a.numberOf(cmd, prefix+"ID")
		switch {
		case err != nil:
			return err
		case ok && address != "" && other == id:
			named, own = true, address
			continue
		case ok && address != "":
			leaders[other] = address
			continue
		}
		break
	}
	number := strconv.FormatUint(id+1, 10)
	if len(leaders) == 0 || cmd.Flags().Changed("peers") || cmd.Flags().Changed("join") {
		return a.fromContainer(cmd, "id", number)
	}
	if err := errors.Join(a.fromContainer(cmd, "id", number), a.fromContainer(cmd, "advertise", own)); err != nil {
		return err
	}
	if named && len(leaders)%2 == 1 { // the list lacks one, but the others have it
		return a.fromContainer(cmd, "join", strings.Join(slices.Sorted(maps.Values(leaders)), ","))
	}
	leaders[id] = own
	var peers []string
	for other, address := range leaders {
		peers = append(peers, fmt.Sprintf("%d=%s", other+1, address))
	}
	f.contained = true
	return a.fromContainer(cmd, "peers", strings.Join(peers, ","))
}

// workersFromContainer adds the workers of the original's configuration. Their ids are in no variable: there, they counted from 0, and from 1 once leaders had
// ids.
func (a *app) workersFromContainer(cmd *cobra.Command, f *leaderFlags) error {
	_, fromOne := a.env("LEADER_ID")
	for i := uint64(0); ; i++ {
		prefix := fmt.Sprintf("WORKER%d_", i+1)
		address := a.hostPort(prefix+"HOST", prefix+"PORT", "localhost", strconv.FormatUint(workerPort+i, 10))
		if address == "" {
			return nil
		}
		w := node.ExpectedWorker{ID: i}
		if fromOne {
			w.ID++
		}
		id, ok, err := a.numberOf(cmd, prefix+"ID")
		if ok {
			w.ID = id
		}
		if err == nil {
			w.Address, err = transport.ParseAddress(address)
		}
		if err != nil {
			return usagef(cmd, "invalid %sHOST, %[1]sPORT or %[1]sID: %v", prefix, err)
		}
		f.Workers = append(f.Workers, w)
	}
}

// workerPort is the port of the original's first worker.
const workerPort = 6651

// numberOf returns the id in an environment variable of the original's containers; false: it is not set.
func (a *app) numberOf(cmd *cobra.Command, name string) (id uint64, ok bool, err error) {
	text, ok := a.env(name)
	if !ok || text == "" {
		return 0, false, nil
	}
	id, err = strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, false, usagef(cmd, "invalid %s=%q: want a number from 0 to %d", name, text, api.WorkerIDMax)
	}
	return id, true, nil
}

// containerAddress is the address for other containers: the host name if the leader listens on all interfaces.
func (a *app) containerAddress(cmd *cobra.Command) (string, error) {
	listen := cmd.Flags().Lookup("listen").Value.String()
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", usagef(cmd, "--listen: invalid address %q: want host:port", listen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("name of this machine: %w", err)
		}
	}
	return net.JoinHostPort(host, port), nil
}
