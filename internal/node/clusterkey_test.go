package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	n.cfg.Key.keys.key = &other
	if _, err := n.openSecret("uid", &sealed[0]); err == nil || !strings.Contains(err.Error(), "cluster.key is missing, or is not that of") {
		t.Errorf("openSecret() with another key: %v", err)
	}
}

// keys returns a cluster's present key, and the next one with its authority.
func keys(t *testing.T, k *ClusterKey) (now, next access.Key, authority access.Authority) {
	t.Helper()
	made, err := k.Make()
	if err != nil {
		t.Fatal(err)
	}
	next = access.NewKey()
	if authority, err = access.NewAuthority(next, "test-1a2b", time.Now()); err != nil {
		t.Fatal(err)
	}
	return *made, next, authority
}

// TestFollow: a key replaces the one before when the cluster has an authority of it, and not before, whenever the process ends between.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	now, next, authority := keys(t, openKey(t, dir))
	before, err := access.NewAuthority(now, "test-1a2b", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if known, err := openKey(t, dir).Follow(authority.Certificate()); known || err != nil {
		t.Errorf("Follow() of an unknown key = %v, %v", known, err)
	}
	if err := openKey(t, dir).SetNext(access.NewKey()); err != nil { // of a leader that has failed
		t.Fatal(err)
	}
	if err := openKey(t, dir).SetNext(next); err != nil {
		t.Fatal(err)
	}
	if known, err := openKey(t, dir).Follow(before.Certificate()); !known || err != nil || *openKey(t, dir).Get() != now {
		t.Errorf("Follow() of the present key = %v, %v, want it to remain", known, err)
	}
	if known, err := openKey(t, dir).Follow(authority.Certificate()); !known || err != nil || *openKey(t, dir).Get() != next {
		t.Errorf("Follow() of the next key = %v, %v, want it to be used", known, err)
	}
	for _, a := range []access.Authority{before, authority} {
		if _, err := openKey(t, dir).Authority(a.Certificate()); err != nil {
			t.Error(err)
		}
	}
	if err := openKey(t, dir).Forget(); err != nil {
		t.Fatal(err)
	}
	if keys := openKey(t, dir).all(); *keys.key != next || keys.former != nil || keys.next != nil {
		t.Errorf("the keys are %v, want the new one only", keys)
	}
}

// TestReseal: secrets are sealed under the key that follows, and only then is the former one forgotten.
func TestReseal(t *testing.T) {
	n := newRig(t).node
	req := request(1)
	req.Secrets = map[string]string{"A": "1", "B": "2"}
	submit(t, n, req, "")
	submit(t, n, request(1), "")
	_, next, authority := keys(t, n.cfg.Key)
	if err := n.cfg.Key.SetNext(next); err != nil {
		t.Fatal(err)
	}
	if _, err := n.cfg.Key.Follow(authority.Certificate()); err != nil {
		t.Fatal(err)
	}
	opens := func() (value string) {
		t.Helper()
		if err := n.do(t.Context(), func() {
			job := n.loop.controller.Machine().Job(1)
			value, _ = n.openSecret(job.UID, &job.Spec.Secrets[1])
		}); err != nil {
			t.Fatal(err)
		}
		return value
	}
	if opens() != "2" {
		t.Error("a secret is not opened by the former key")
	}
	long := time.Now().Add(-2 * formerKept)
	for i, replaced := range []time.Time{long, time.Now(), long} { // seals again; a submit may be in progress; forgets
		if err := n.reseal(t.Context(), replaced); err != nil {
			t.Fatal(err)
		}
		if forgotten := n.cfg.Key.all().former == nil; forgotten != (i == 2) {
			t.Errorf("after call %d the former key is forgotten: %v", i, forgotten)
		}
	}
	if opens() != "2" {
		t.Error("a secret is not sealed under the new key")
	}
}

// TestCertificatesOf: an authority of a former key is accepted until all machines with a valid certificate have renewed it.
func TestCertificatesOf(t *testing.T) {
	n := newRigs(t, 1)[0].node
	put := func(number, key uint64) {
		t.Helper()
		a, err := access.NewAuthority(access.NewKey(), "test-1a2b", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := n.PutAuthority(t.Context(), &state.Authority{Number: number, Key: key, Certificate: a.Certificate().Raw}); err != nil {
			t.Fatal(err)
		}
	}
	enroll := func(name string) {
		t.Helper()
		if err := n.Enroll(t.Context(), &state.Enrolment{Fingerprint: name, Role: access.RoleWorker}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, after time.Duration, want int) {
		t.Helper()
		accepted, chain, _, err := certificatesOf(n.Access(), time.Now().Add(after))
		if err != nil || len(accepted) != want || len(accepted)+len(chain) != len(n.Access().Authorities()) {
			t.Errorf("%s: %d authorities are accepted, and %d are in the chain, %v; want %d", what, len(accepted), len(chain), err, want)
		}
	}
	put(1, 0)
	enroll("f1")
	enroll("f2")
	time.Sleep(2 * time.Millisecond) // the log's clock
	put(2, 0)
	check("a new authority", 0, 2)
	check("a day and an hour later", 25*time.Hour+time.Minute, 1)
	put(3, 1)
	check("a new key", 0, 3)
	check("a day and an hour later", 25*time.Hour+time.Minute, 1)
	enroll("f1")
	check("one has renewed", 0, 3)
	if err := n.RevokeMachine(t.Context(), "f2"); err != nil {
		t.Fatal(err)
	}
	check("the other one is revoked", 0, 1)
}
