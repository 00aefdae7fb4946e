package node

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/state"
)

// ClusterKeyFile holds the cluster's key in a data directory.
const ClusterKeyFile = "cluster.key"

// ClusterKey is the key of the cluster: secrets in the log are sealed under it, and the keys of the certificate authorities follow from it. It is in
// the data directory, and all leaders of a cluster need the same.
type ClusterKey struct {
	path string // empty: in memory only

	mu   sync.Mutex // guards keys, which do not change
	keys clusterKeys
}

// clusterKeys are the content of the file, with one key a line. While the key is replaced there are others beside it.
type clusterKeys struct {
	key    *access.Key // nil: there is none
	next   *access.Key // that the cluster will have, unless the leader who made it has failed
	former *access.Key // under which some secrets are sealed
}

// Words before the other keys.
const (
	nextKey   = "next "
	formerKey = "former "
)

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
		k.keys.key = new(access.Key(data))
		return k, nil
	}
	for line := range strings.Lines(string(data)) {
		to := &k.keys.key
		if text, ok := strings.CutPrefix(line, nextKey); ok {
			to, line = &k.keys.next, text
		} else if text, ok := strings.CutPrefix(line, formerKey); ok {
			to, line = &k.keys.former, text
		}
		key, err := access.ParseKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s is damaged: %w: restore it from a backup, or copy that of another leader of the cluster", k.path, err)
		}
		*to = &key
	}
	if k.keys.key == nil {
		return nil, fmt.Errorf("%s is damaged: it holds no key: restore it from a backup, or copy that of another leader of the cluster", k.path)
	}
	return k, nil
}

// Get returns the key; nil: there is none.
func (k *ClusterKey) Get() *access.Key { return k.all().key }

func (k *ClusterKey) all() clusterKeys {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys
}

// change stores and uses the keys as f has changed them.
func (k *ClusterKey) change(f func(keys *clusterKeys) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := k.keys
	if err := f(&keys); err != nil || keys == k.keys {
		return err
	}
	if k.path != "" {
		text := keys.key.Text() + "\n"
		if keys.next != nil {
			text += nextKey + keys.next.Text() + "\n"
		}
		if keys.former != nil {
			text += formerKey + keys.former.Text() + "\n"
		}
		if err := datadir.WriteFile(k.path, []byte(text)); err != nil {
			return fmt.Errorf("cluster key: %w", err)
		}
	}
	k.keys = keys
	return nil
}

// Make returns the key, which it makes first if there is none.
func (k *ClusterKey) Make() (*access.Key, error) {
	err := k.change(func(keys *clusterKeys) error {
		if keys.key == nil {
			keys.key = new(access.NewKey())
		}
		return nil
	})
	return k.Get(), err
}

// Put stores a key that the cluster has already.
func (k *ClusterKey) Put(key access.Key) error {
	return k.change(func(keys *clusterKeys) error {
		switch {
		case keys.key == nil:
			keys.key = &key
		case *keys.key != key:
			return fmt.Errorf("%s is the key of another cluster: start with an empty data directory", k.path)
		}
		return nil
	})
}

// SetNext stores the key that the cluster will have.
func (k *ClusterKey) SetNext(key access.Key) error {
	return k.change(func(keys *clusterKeys) error {
		if keys.key == nil {
			return errors.New("this leader has no cluster key yet")
		}
		keys.next = &key
		return nil
	})
}

// Follow uses the next key if the newest authority of the cluster is of that, and reports whether the key is the authority's.
func (k *ClusterKey) Follow(newest *x509.Certificate) (bool, error) {
	err := k.change(func(keys *clusterKeys) error {
		if !isOf(newest, keys.key) && isOf(newest, keys.next) {
			keys.key, keys.next, keys.former = keys.next, nil, keys.key
		}
		return nil
	})
	return isOf(newest, k.Get()), err
}

func isOf(authority *x509.Certificate, key *access.Key) bool {
	if key == nil {
		return false
	}
	_, err := access.OpenAuthority(*key, authority)
	return err == nil
}

// Authority returns the authority with that certificate. After a crash while the key was replaced, it may be that of the former key.
func (k *ClusterKey) Authority(certificate *x509.Certificate) (access.Authority, error) {
	keys := k.all()
	if isOf(certificate, keys.former) {
		return access.OpenAuthority(*keys.former, certificate)
	}
	return access.OpenAuthority(*keys.key, certificate)
}

// Forget removes the former key.
func (k *ClusterKey) Forget() error {
	return k.change(func(keys *clusterKeys) error {
		keys.former = nil
		return nil
	})
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
	keys := n.cfg.Key.all()
	for _, key := range []*access.Key{keys.key, keys.former} {
		if key == nil {
			continue
		}
		if value, err := access.Open(key, secretRecord(uid, s.Name), s.Sealed); err == nil {
			return string(value), nil
		}
	}
	return "", fmt.Errorf("leader %d cannot open it: its %s is missing, or is not that of the leader that took the job: copy that file from there "+
		"into its data directory, start it again, and retry the job", n.cfg.Log.Status().ID, ClusterKeyFile)
}
