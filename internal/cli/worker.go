package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/bytesize"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/server"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/worker"
)

// workerFlags are the flags of the worker command: those that are fields of its configuration, and the others.
type workerFlags struct {
	worker.Config

	listen      string
	advertise   string
	hosts       []string
	insecure    bool
	outside     transport.Files
	leader      string
	join        string
	memory      string
	labels      []string
	resources   []string
	privileges  bool
	addressFile string
	logLevel    string
}

func (a *app) workerCommand() *cobra.Command {
	var f workerFlags
	cmd := &cobra.Command{
		Use: "worker", Aliases: []string{"spren"}, Short: "Run a worker", Args: noArgs,
		Long: `Run a worker. It dials the leader, so it can be behind NAT and change its address, and retries while there is none. It keeps
track of all leaders of its cluster and of their addresses. Without --leader it finds them by itself: on this machine, or by
multicast on its network. Without --join it works for leaders of the same user, or of root, on this machine only, unless --insecure is given.

A cluster whose leaders are on other machines is joined with --join STRING, once: the worker gets a certificate for a key that it makes in its
data directory, and renews it by itself. If the leaders have certificates of an outside authority, such as a company's, and so has the worker, of which the
subject has O=bridgefour:worker, --join HOST:PORT with --tls-ca, --tls-cert and --tls-key does the same without a string.

Its HTTP listener, for status and metrics, serves other machines with --listen HOST:PORT: by TLS, with the certificate that it got by --join or that of --tls-cert,
and clients that have a token, which its leader checks.

--leader is a list, separated by commas, of:
  HOST:PORT   a leader; any one of a cluster is enough
  auto        the default
  dns:NAME    the SRV records _bridgefour._tcp.NAME, or else the addresses of NAME
  wait        alone: the worker waits until a leader invites it (POST /cluster/addWorker)

SIGTERM and Ctrl-C drain the worker: it returns tasks that have not started, finishes those that run (for up to 30 s), and
exits 0. A second signal ends it at once; its tasks then run on other workers.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.outside = a.outside
			return a.runWorker(cmd, &f)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.DataDir, "data-dir", "", "`folder` of the worker's identity and logs "+
		"(default: the first of $XDG_STATE_HOME/bridgefour/worker-1, -2 … that no process uses)")
	fs.StringVar(&f.listen, "listen", "127.0.0.1:0", "`address` of its HTTP listener, for status and metrics; port 0: any free one")
	fs.StringVar(&f.advertise, "advertise", "", "`address` that others use for the listener (default: its own)")
	fs.StringVar(&f.join, "join", "", "`string` of 'bridgefour token create --role worker', or @FILE that has it, with which the worker joins a cluster for good; or addresses of leaders, with --tls-ca")
	markSecretFile(cmd, "join", "@")
	addOutside(cmd, "the outside authority of the leaders' certificates, for --join HOST:PORT (default, for https://HOST:PORT: those of the system)",
		"the worker's certificate of an outside authority, with its chain, for clients of --listen, and for --join HOST:PORT (O=bridgefour:worker); "+
			"read again when it changes")
	fs.StringVar(&f.leader, "leader", "auto", "the leaders: `ADDR,…`, auto, dns:NAME, or wait for an invitation")
	completeFlag(cmd, "leader", offer("auto", "dns:", "wait"))
	fs.StringVar(&f.ClusterName, "cluster-name", "", "`name` of the cluster to join (default: any)")
	fs.StringVar(&f.ClusterID, "cluster-id", "", "`id` of the cluster to join, if two have one name")
	fs.IntVar(&f.Slots, "slots", 0, "attempts to run at a time (default: one per CPU)")
	fs.StringVar(&f.memory, "memory", "", "memory `size` for attempts, such as 8GiB (default: not limited)")
	addResources(fs, "resource", &f.resources)
	fs.StringArrayVar(&f.labels, "label", nil, "label `key=value` that jobs can require; repeatable")
	fs.BoolVar(&f.Confinement.Sandbox, "sandbox", false, "commands of all jobs can write only to their temporary folder, $TMPDIR (Linux 6.2 or newer)")
	fs.BoolVar(&f.Confinement.NoNetwork, "no-network", false, "commands of all jobs have no network, and no sockets at all (Linux)")
	fs.StringVar(&f.RunAs, "run-as", "", "of a worker that root has started: `USER` who runs the commands of all jobs and uses their files, "+
		"or submitter: who has submitted the job")
	addAllowPrivileges(cmd, &f.privileges)
	addNice(cmd, &f.Nice, niceServer)
	addAllowedHost(cmd, &f.hosts)
	cmd.Flags().BoolVar(&f.insecure, "insecure", false, "work for leaders of other users and machines without --join, and serve every client that reaches --listen, without encryption: for networks of trusted machines only")
	addAddressFile(cmd, &f.addressFile)
	addLogLevel(cmd, &f.logLevel, "info")
	return cmd
}

func (a *app) runWorker(cmd *cobra.Command, f *workerFlags) error {
	if err := errors.Join(a.workerFromContainer(cmd, f), a.readJoin(cmd, &f.join)); err != nil {
		return err
	}
	logger, err := a.logger(f.logLevel)
	if err != nil {
		return err
	}
	cfg := f.Config
	if err := f.checkListener(cmd); err != nil {
		return err
	}
	cfg.Confinement.NoNewPrivileges = noNewPrivileges(f.privileges)
	cfg.Version, cfg.Jobs, cfg.Logger = a.versionText(), a.jobs, logger
	if err := a.workerOffer(cmd, f, &cfg); err != nil {
		return err
	}
	found, err := discover.Parse(f.leader, cfg.ClusterName, logger)
	if err != nil {
		return usagef(cmd, "--leader: %v", err)
	}
	cfg.Leaders, cfg.Discover = found.Leaders, found.Source
	var free func()
	if cfg.DataDir, free, err = a.workerDir(cfg.DataDir); err != nil {
		return err
	}
	defer free()
	credentials, err := joinWorker(cmd.Context(), cmd, f, &cfg)
	if err != nil {
		return orInterrupted(cmd.Context(), err)
	}
	encryption, err := f.encryption(cmd, credentials)
	if err != nil {
		return err
	}
	warnInsecure(logger, f.listen, f.insecure)
	s, err := server.OpenWorker(cmd.Context(), cfg, server.Listener{Listen: f.listen, Advertise: f.advertise, Hosts: f.hosts, Insecure: f.insecure, TLS: encryption})
	if err != nil {
		return explainServe(err, f.listen, cfg.DataDir)
	}
	if err := writeAddress(f.addressFile, s.Addr().String()); err != nil {
		return errors.Join(err, s.Close())
	}
	logger.Info("worker listens", "address", s.Addr().String(), "leader", f.leader, "data_dir", cfg.DataDir, "resources", resourcesText(cfg.Resources),
		"version", cfg.Version)
	renewing, stop := context.WithCancel(context.WithoutCancel(cmd.Context()))
	var renewal sync.WaitGroup
	if credentials != nil {
		renewal.Go(func() { credentials.KeepRenewed(renewing, s.Leaders, logger) })
	}
	err = s.Run(cmd.Context())
	stop()
	renewal.Wait()
	logger.Info("worker ended")
	return err
}

// workerFromContainer applies the environment variables of the original system's containers. In its own, none listens at LEADER_HOST:LEADER_PORT.
func (a *app) workerFromContainer(cmd *cobra.Command, f *workerFlags) error {
	leader := a.hostPort("LEADER_HOST", "LEADER_PORT", "127.0.0.1", transport.DefaultPort)
	if leader != "" {
		leader += ",auto"
	}
	id, ok, err := a.numberOf(cmd, "WORKER_ID")
	if ok {
		f.Claim = id + 1
	}
	return errors.Join(
		err,
		a.fromContainer(cmd, "listen", a.hostPort("BRIDGEFOUR_HOST", "BRIDGEFOUR_PORT", "127.0.0.1", "0")),
		a.fromContainer(cmd, "leader", leader),
	)
}

// workerOffer sets what a worker has for attempts.
func (a *app) workerOffer(cmd *cobra.Command, f *workerFlags, cfg *worker.Config) (err error) {
	if cfg.Slots < 0 || cfg.Slots == 0 && a.typed["slots"] {
		return usagef(cmd, "--slots is %d: want at least 1", cfg.Slots)
	}
	if cfg.Labels, err = pairs(cmd, "label", f.labels); err != nil {
		return err
	}
	for key, value := range a.workerLabels() {
		if cfg.Labels == nil {
			cfg.Labels = map[string]string{}
		}
		cfg.Labels[key] = value
	}
	if cfg.Resources, err = workerResources(cmd, "resource", f.resources); err != nil {
		return err
	}
	a.addDevices(cfg.Resources, devFolder)
	if f.memory != "" {
		if cfg.Memory, err = bytesize.Parse(f.memory); err != nil {
			return usagef(cmd, "--memory: %v", err)
		}
		if cfg.Memory < 1<<20 {
			return usagef(cmd, "--memory %s: want at least 1MiB", f.memory)
		}
	}
	return nil
}

func addAllowPrivileges(cmd *cobra.Command, allow *bool) {
	cmd.Flags().BoolVar(allow, "allow-privileges", false, "programs such as sudo and ping may give commands the privileges of other users")
}

// noNewPrivileges reports whether the commands of a server get no new privileges.
func noNewPrivileges(allowed bool) bool { return !allowed && runtime.GOOS == "linux" }

// joinWorker opens the credentials of a worker, and enrolls it if it is to join and is in no cluster; nil: it has no credentials.
func joinWorker(ctx context.Context, cmd *cobra.Command, f *workerFlags, cfg *worker.Config) (*access.Credentials, error) {
	if f.outside.Authority != "" && (f.join == "" || transport.IsJoin(f.join)) {
		return nil, usagef(cmd, "--tls-ca is for --join HOST:PORT, without a string")
	}
	var j transport.Join
	if f.join != "" {
		var err error
		if j, err = server.ParseJoin(f.join, access.RoleWorker, f.outside); err != nil {
			return nil, usagef(cmd, "--join: %v", err)
		}
		if !cmd.Flags().Changed("leader") {
			cfg.Leaders, cfg.Discover = j.Addresses, nil
		}
	}
	joins := j.Authority != nil || j.Outside != nil
	if !joins && !exists(filepath.Join(cfg.DataDir, access.CertificateFile)) { // a key alone is left by a join that failed
		cfg.Dial = access.PlainDial(f.insecure)
		return nil, nil //nolint:nilnil // not a joined worker
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	credentials, err := access.OpenCredentials(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	switch {
	case !joins || credentials.Of(j):
	case credentials.Enrolled():
		return nil, usagef(cmd, "--join: the worker in %s belongs to another cluster than the string: give it another --data-dir, or, if the certificate "+
			"authority of its own cluster has changed meanwhile, remove %s there", cfg.DataDir, access.KeyFile)
	default:
		if _, err := credentials.Enroll(ctx, j, "", cfg.Logger); err != nil {
			return nil, err
		}
	}
	if !credentials.Enrolled() {
		return nil, fmt.Errorf("the certificate in %s is invalid, because %s or %s was removed: start the worker with --join and a string of "+
			"'bridgefour token create --role worker'", cfg.DataDir, access.KeyFile, access.AuthorityFile)
	}
	cfg.Identity, cfg.Dial = credentials.Identity(), credentials.Dial
	return credentials, nil
}

// checkListener checks the flags of the worker's listener.
func (f *workerFlags) checkListener(cmd *cobra.Command) error {
	if err := transport.CheckListen(f.listen); err != nil {
		return usagef(cmd, "--listen: %v", err)
	}
	if f.advertise != "" {
		if err := transport.CheckAddress(f.advertise); err != nil {
			return usagef(cmd, "--advertise: %v", err)
		}
	}
	return nil
}

// encryption returns that of the worker's listener; nil: it has none, and does not need it.
func (f *workerFlags) encryption(cmd *cobra.Command, credentials *access.Credentials) (*access.Encryption, error) {
	e, err := server.Encryption(f.outside, credentials)
	if err != nil || e != nil && !f.insecure {
		return e, err
	}
	return nil, checkOpen(cmd, f.listen, f.insecure, "join the cluster with --join STRING, name a certificate with --tls-cert, ")
}

// workersOfMachine bounds the search for a free default directory.
const workersOfMachine = 1000

// workerDir is the given data directory, or the first default that no other process uses: workers in several terminals need no
// flags and keep their identities. It is locked until free is called.
func (a *app) workerDir(given string) (dir string, free func(), err error) {
	if given != "" {
		dir, err = filepath.Abs(given)
		return dir, func() {}, err
	}
	state, err := a.serverDir("", "")
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return "", nil, fmt.Errorf("%w; name a folder with --data-dir", err)
	}
	for i := 1; i <= workersOfMachine; i++ {
		dir := filepath.Join(state, "worker-"+strconv.Itoa(i))
		f, err := datadir.Lock(dir+".lock", 0)
		if err == nil {
			return dir, func() { _ = f.Close() }, nil // the kernel does the same at the end of the process
		}
		if !errors.Is(err, datadir.ErrLocked) {
			return "", nil, fmt.Errorf("%w; name a folder with --data-dir", err)
		}
		if err := f.Close(); err != nil {
			return "", nil, err
		}
	}
	return "", nil, fmt.Errorf("%d workers use %s already: name a folder with --data-dir", workersOfMachine, state)
}
