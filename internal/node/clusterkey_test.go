package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/state"
)

func openKey(t *testing.T, dir string) *ClusterKey {
	t.Helper()
	k, err := OpenClusterKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestClusterKey(t *testing.T) {
	dir := t.TempDir()
	if key := openKey(t, dir).Get(); key != nil {
		t.Error("a new directory has a key")
	}
	made, err := openKey(t, dir).Make()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, ClusterKeyFile)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v, want mode 0600", info.Mode(), err)
	}
	k := openKey(t, dir)
	if key, err := k.Make(); err != nil || *key != *made || *k.Get() != *made {
		t.Errorf("the key that is there is another: %v", err)
	}
	if err := os.WriteFile(path, made[:], 0o600); err != nil {
		t.Fatal(err)
	}
	if key := openKey(t, dir).Get(); *key != *made {
		t.Error("the key of an early version, in bytes, is another")
	}
	if err := os.Truncate(path, 31); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenClusterKey(dir); err == nil || !strings.Contains(err.Error(), "damaged: want a cluster key") {
		t.Errorf("a truncated key: %v", err)
	}
}

// TestSecrets: a secret is opened for its job and name, under the key of the cluster, only.
func TestSecrets(t *testing.T) {
	n := newRig(t).node
	sealed, err := n.sealSecrets("uid", map[string]string{"B": "2", "A": "1"})
	if err != nil || len(sealed) != 2 || sealed[0].Name != "A" {
		t.Fatalf("sealSecrets() = %v, %v", sealed, err)
	}
	if value, err := n.openSecret("uid", &sealed[0]); value != "1" || err != nil {
		t.Errorf("openSecret() = %q, %v, want 1", value, err)
	}
	if _, err := n.openSecret("other", &sealed[0]); err == nil {
		t.Error("the secret of another job was opened")
	}
	if _, err := n.openSecret("uid", &state.Secret{Name: "B", Sealed: sealed[0].Sealed}); err == nil {
		t.Error("a secret was opened as another variable")
	}
	other := access.NewKey()
	n.cfg.Key.key = &other
	if _, err := n.openSecret("uid", &sealed[0]); err == nil || !strings.Contains(err.Error(), "cluster.key is missing, or is not that of") {
		t.Errorf("openSecret() with another key: %v", err)
	}
}
