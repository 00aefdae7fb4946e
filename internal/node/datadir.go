package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
)

// joiningFile exists while a data directory waits to join a cluster. A restart repeats the same request under the same directory
// name, so that a crash leaves no member behind that never starts.
const joiningFile = "joining.json"

// Names in the data directory.
const (
	logDir   = "log"
	spoolDir = "spool"

	// SocketName is the unix socket of a node with a data directory of its own.
	SocketName = "leader.sock"
)

// inDataDir reports whether a name in the data directory is one that a leader gives.
func inDataDir(name string) bool {
	name, _, _ = strings.Cut(name, datadir.Temporary)
	return slices.Contains([]string{
		logDir, spoolDir, ClusterKeyFile, SocketName, joiningFile, adminAccessFile, access.KeyFile, access.CertificateFile, access.AuthorityFile,
	}, name)
}

// joining is the content of joiningFile.
type joining struct {
	Leaders   []string `json:"leaders"` // host:port, to ask
	Directory string   `json:"directory"`
}

// openLog opens the log of the data directory or creates it.
func (p *Process) openLog(ctx context.Context) error {
	cfg := &p.cfg
	rc := replica.Config{
		Dir: filepath.Join(cfg.DataDir, logDir), ID: cfg.ID, Address: p.advertised, Logger: cfg.Logger,
	}
	used, err := replica.InUse(rc.Dir)
	if err != nil {
		return err
	}
	waiting, err := readJoining(cfg.DataDir)
	switch {
	case err != nil:
		return err
	case used:
	case waiting != nil || len(cfg.Join) > 0:
		if err := p.requestJoin(ctx, waiting, &rc); err != nil {
			return err
		}
	case len(cfg.Peers) > 0:
		rc.Peers, rc.Cluster = cfg.Peers, cfg.ClusterID
	default:
		rc.Cluster = NewClusterID(cfg.ClusterName)
	}
	if !used && waiting == nil && len(cfg.Join) == 0 {
		warnSpool(ctx, cfg)
	}
	p.transport = peer.New(peer.Config{
		Name: cfg.ClusterName, Self: replica.Member{Address: p.advertised}, Version: cfg.Version, Level: state.FeatureLevel, Logger: cfg.Logger, Fresh: p.fresh, OnInvite: p.onInvite,
		Dial: p.Dial, Certified: certifiedDirectory, OnKey: p.onKey, Join: p.security.joinText(),
	})
	rc.Transport = p.transport
	if p.replica, err = replica.Open(rc); err != nil {
		return err
	}
	// Clusters of dev and run had no name in versions before 0.4.
	if name := ClusterNameOf(p.replica.Members().Cluster); name != "" && name != cfg.ClusterName {
		err := fmt.Errorf("data directory %s belongs to the cluster %q (%s), not to %q: give --cluster-name %s, or another --data-dir",
			cfg.DataDir, name, p.replica.Members().Cluster, cfg.ClusterName, name)
		return errors.Join(err, p.replica.Close())
	}
	if err := p.certifySelf(); err != nil {
		return errors.Join(err, p.replica.Close())
	}
	p.transport.Attach(p.replica)
	return ignore(os.Remove(filepath.Join(cfg.DataDir, joiningFile)), fs.ErrNotExist)
}

// warnSpool warns if a new cluster is about to start beside the outputs of an earlier one: its log may have been lost or moved.
func warnSpool(ctx context.Context, cfg *ProcessConfig) {
	entries, err := os.ReadDir(cfg.Spool)
	jobs := 0
	for _, e := range entries {
		if inSpool(e.Name()) {
			jobs++
		}
	}
	if err != nil || jobs == 0 || len(cfg.Peers) > 0 && cfg.Spool != filepath.Join(cfg.DataDir, spoolDir) {
		return // a shared spool is used by the other leaders of a new cluster
	}
	cfg.Logger.WarnContext(ctx, "a new cluster starts, but its spool holds outputs of earlier jobs, which it does not know: if their log was "+
		"moved or lost, stop this leader and put the log back; else remove the spool's folders, or choose other directories",
		"log", filepath.Join(cfg.DataDir, logDir), "spool", cfg.Spool, "jobs", jobs)
}

// requestJoin adds this node to the cluster as a member and sets rc accordingly.
func (p *Process) requestJoin(ctx context.Context, waiting *joining, rc *replica.Config) error {
	if waiting == nil {
		waiting = &joining{Directory: randomHex(8)}
	}
	if len(p.cfg.Join) > 0 {
		waiting.Leaders = p.cfg.Join
	}
	if err := writeJoining(p.cfg.DataDir, waiting); err != nil {
		return err
	}
	if err := p.enroll(ctx, waiting.Directory); err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	reply, err := peer.Join(ctx, peer.JoinConfig{
		Addresses: waiting.Leaders, Name: p.cfg.ClusterName, Version: p.cfg.Version, Level: state.FeatureLevel, Logger: p.cfg.Logger, Dial: p.Dial,
		Self: replica.Member{ID: p.cfg.ID, Address: p.advertised, Directory: waiting.Directory},
	})
	if err != nil {
		return err
	}
	rc.Join, rc.ID, rc.Cluster, rc.Directory = true, reply.ID, reply.Cluster, waiting.Directory
	rc.Peers = reply.Members.List
	return nil
}

func readJoining(dataDir string) (*joining, error) {
	path := filepath.Join(dataDir, joiningFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // a missing file is not an error
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	j := &joining{}
	if err := json.Unmarshal(text, j); err != nil || j.Directory == "" {
		return nil, fmt.Errorf("%s is damaged: remove it, and start with --join again", path)
	}
	return j, nil
}

// writeJoining writes the file atomically and durably.
func writeJoining(dataDir string, j *joining) error {
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if err := datadir.WriteFile(filepath.Join(dataDir, joiningFile), text); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// LeaveCluster discards the cluster of a fresh node that was invited into another one. Its log is empty.
func LeaveCluster(dataDir string, leaders []string) error {
	if err := writeJoining(dataDir, &joining{Leaders: leaders, Directory: randomHex(8)}); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dataDir, logDir)); err != nil {
		return fmt.Errorf("discard the empty cluster of data directory %s: %w", dataDir, err)
	}
	return nil
}

// NewClusterID returns a new id for a cluster of that name.
func NewClusterID(name string) string { return name + "-" + randomHex(4) }

// ClusterNameOf returns the name in a cluster's id.
func ClusterNameOf(id string) string {
	at := strings.LastIndexByte(id, '-')
	return id[:max(at, 0)]
}

// randomHex returns random bytes in hexadecimal digits.
func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	_, _ = rand.Read(raw) // it returns no error
	return hex.EncodeToString(raw)
}
