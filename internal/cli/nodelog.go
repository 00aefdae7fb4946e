package cli

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
	"regexp"
	"strings"

	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// joiningFile exists while a data directory waits to join a cluster. A restart repeats the same request under the same directory
// name, so that a crash leaves no member behind that never starts.
const joiningFile = "joining.json"

// joining is the content of joiningFile.
type joining struct {
	Leaders   []string `json:"leaders"` // host:port, to ask
	Directory string   `json:"directory"`
}

// openLog opens the log of the data directory or creates it.
func (n *node) openLog(ctx context.Context) error {
	cfg := &n.cfg
	rc := replica.Config{
		Dir: filepath.Join(cfg.dataDir, "log"), ID: cfg.id, Address: n.advertised, Logger: cfg.logger,
	}
	used, err := replica.InUse(rc.Dir)
	if err != nil {
		return err
	}
	waiting, err := readJoining(cfg.dataDir)
	switch {
	case err != nil:
		return err
	case used:
	case waiting != nil || len(cfg.join) > 0:
		if err := n.requestJoin(ctx, waiting, &rc); err != nil {
			return err
		}
	case len(cfg.peers) > 0:
		rc.Peers, rc.Cluster = cfg.peers, cfg.clusterID
	default:
		rc.Cluster = cfg.clusterName + "-" + randomID()
	}
	n.transport = peer.New(peer.Config{
		Name: cfg.clusterName, Self: replica.Member{Address: n.advertised}, Version: cfg.version, Logger: cfg.logger, Fresh: n.fresh, OnInvite: n.onInvite,
	})
	rc.Transport = n.transport
	if n.replica, err = replica.Open(rc); err != nil {
		return err
	}
	if name := clusterName(n.replica.Members().Cluster); name != cfg.clusterName {
		err := fmt.Errorf("data directory %s belongs to the cluster %q (%s), not to %q: give --cluster-name %s, or another --data-dir",
			cfg.dataDir, name, n.replica.Members().Cluster, cfg.clusterName, name)
		return errors.Join(err, n.replica.Close())
	}
	n.transport.Attach(n.replica)
	if waiting, _ := readJoining(cfg.dataDir); waiting != nil {
		return errors.Join(os.Remove(filepath.Join(cfg.dataDir, joiningFile)))
	}
	return nil
}

// requestJoin adds this node to the cluster as a member and sets rc accordingly.
func (n *node) requestJoin(ctx context.Context, waiting *joining, rc *replica.Config) error {
	if waiting == nil {
		waiting = &joining{Directory: randomID() + randomID()}
	}
	if len(n.cfg.join) > 0 {
		waiting.Leaders = n.cfg.join
	}
	if err := writeJoining(n.cfg.dataDir, waiting); err != nil {
		return err
	}
	reply, err := peer.Join(ctx, peer.JoinConfig{
		Addresses: waiting.Leaders, Name: n.cfg.clusterName, Version: n.cfg.version, Logger: n.cfg.logger,
		Self: replica.Member{ID: n.cfg.id, Address: n.advertised, Directory: waiting.Directory},
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
	path := filepath.Join(dataDir, joiningFile)
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dataDir)
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// leaveCluster discards the cluster of a fresh node that was invited into another one. Its log is empty.
func leaveCluster(dataDir string, leaders []string) error {
	if err := writeJoining(dataDir, &joining{Leaders: leaders, Directory: randomID() + randomID()}); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dataDir, "log")); err != nil {
		return fmt.Errorf("discard the empty cluster of data directory %s: %w", dataDir, err)
	}
	return nil
}

func randomID() string {
	var raw [4]byte
	_, _ = rand.Read(raw[:]) // never fails, or ends the process
	return hex.EncodeToString(raw[:])
}

// clusterName is the name part of a cluster ID.
func clusterName(id string) string {
	at := strings.LastIndexByte(id, '-')
	return id[:max(at, 0)]
}

// clusterNamePattern matches valid cluster names.
var clusterNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
