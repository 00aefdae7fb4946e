package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/state"
)

// ClusterKeyFile holds the cluster's key in a data directory.
const ClusterKeyFile = "cluster.key"

// ClusterKey is the key under which secrets in the log are sealed. It is in the data directory, and all leaders of a cluster need the same.
type ClusterKey struct {
	path string // empty: in memory only

	mu  sync.Mutex // guards key
	key *access.Key
}

// OpenClusterKey reads the key in a data directory, if there is one.
func OpenClusterKey(dataDir string) (*ClusterKey, error) {
	k := &ClusterKey{path: filepath.Join(dataDir, ClusterKeyFile)}
	data, err := os.ReadFile(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return k, nil
	case err != nil:
		return nil, fmt.Errorf("cluster key: %w", err)
	case len(data) == len(access.Key{}): // of an early version
		k.key = new(access.Key(data))
		return k, nil
	}
	key, err := access.ParseKey(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: restore it from a backup, or copy that of another leader of the cluster", k.path, err)
	}
	k.key = &key
	return k, nil
}

// Get returns the key; nil: there is none.
func (k *ClusterKey) Get() *access.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.key
}

// Make returns the key, which it makes first if there is none.
func (k *ClusterKey) Make() (*access.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil {
		return k.key, nil
	}
	if err := k.write(access.NewKey()); err != nil {
		return nil, err
	}
	return k.key, nil
}

// Put stores a key that the cluster has already.
func (k *ClusterKey) Put(key access.Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil && *k.key != key {
		return fmt.Errorf("%s is the key of another cluster: start with an empty data directory", k.path)
	}
	return k.write(key)
}

// write stores and uses a key. k.mu must be held.
func (k *ClusterKey) write(key access.Key) error {
	if k.path != "" {
		if err := datadir.WriteFile(k.path, []byte(key.Text()+"\n")); err != nil {
			return fmt.Errorf("cluster key: %w", err)
		}
	}
	k.key = &key
	return nil
}

// secretRecord is what a secret is sealed for: it cannot be moved to another job, or become another variable.
func secretRecord(uid, name string) string { return "job " + uid + " variable " + name }

// sealSecrets seals the secrets of a request for the log.
func (n *Node) sealSecrets(uid string, secrets map[string]string) ([]state.Secret, error) {
	if len(secrets) == 0 {
		return nil, nil
	}
	key, err := n.cfg.Key.Make()
	if err != nil {
		return nil, err
	}
	var sealed []state.Secret
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		sealed = append(sealed, state.Secret{Name: name, Sealed: access.Seal(key, secretRecord(uid, name), []byte(secrets[name]))})
	}
	return sealed, nil
}

// openSecret returns the value of a job's secret. The error is for users.
func (n *Node) openSecret(uid string, s *state.Secret) (string, error) {
	if key := n.cfg.Key.Get(); key != nil {
		if value, err := access.Open(key, secretRecord(uid, s.Name), s.Sealed); err == nil {
			return string(value), nil
		}
	}
	return "", fmt.Errorf("leader %d cannot open it: its %s is missing, or is not that of the leader that took the job: copy that file from there "+
		"into its data directory, start it again, and retry the job", n.cfg.Log.Status().ID, ClusterKeyFile)
}
