package server

import (
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// keyOf returns the cluster key of a leader.
func (f *founders) keyOf(i int) access.Key {
	f.t.Helper()
	k, err := node.OpenClusterKey(f.dirs[i])
	if err != nil {
		f.t.Fatal(err)
	}
	return *k.Get()
}

// forge returns credentials that a thief of the cluster key has made himself.
func (f *founders) forge(stolen access.Key, h access.Holder) *access.Credentials {
	f.t.Helper()
	out, err := access.OpenCredentials(f.t.TempDir())
	if err != nil {
		f.t.Fatal(err)
	}
	authority, err := access.FirstAuthority(stolen, "test-1a2b", time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	if h.Name == "" {
		h.Name = out.Identity()
	}
	raw, err := authority.Issue(h, out.Public(), time.Now(), access.CertificateLife)
	if err != nil {
		f.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := out.Set(leaf, []*x509.Certificate{authority.Certificate()}, nil); err != nil {
		f.t.Fatal(err)
	}
	return out
}

// joins asks a leader for a place, as a leader with a certificate does.
func (f *founders) joins(i int, as *access.Credentials, directory string) error {
	f.t.Helper()
	conn, err := wire.Connect(f.peers[i].Address, as.Dial)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	// Cluster "other": a refusal that only those get who are let in.
	_, err = peerpb.NewPeerClient(conn).Join(f.t.Context(), &peerpb.JoinRequest{ClusterId: "other", Address: "10.0.0.9:1", Directory: directory, Protocol: 1, ProtocolMin: 1, FeatureLevel: 99})
	return err
}

// leads returns the index of the leader.
func (f *founders) leads() int {
	f.t.Helper()
	at := -1
	eventually(f.t, "one leads", func() bool {
		for i, n := range f.nodes {
			if _, self := n.LeaderAddress(); self {
				at = i
			}
		}
		return at >= 0
	})
	return at
}

// TestRotateKey replaces a cluster key that was stolen.
func TestRotateKey(t *testing.T) {
	stolen := access.NewKey()
	f := found(t, stolen, stolen, stolen)
	var stops []func()
	for i := range f.peers {
		stops = append(stops, f.start(i, "test-1a2b", &stolen))
	}
	eventually(t, "one leads, and writes the access of an admin", func() bool { return len(f.adminFiles()) == 1 })
	eventually(t, "all are enrolled", func() bool { return len(f.nodes[0].Access().Enrolments()) == 3 })
	c := secureCluster{t: t}
	c.admin = c.client(readText(t, filepath.Join(f.adminFiles()[0], "admin.access")))
	away, worker, before := c.enroll(access.RoleWorker, ""), c.enroll(access.RoleWorker, ""), c.token(access.RoleWorker)
	renewing, stop := context.WithCancel(t.Context())
	renewed := make(chan struct{})
	go func() {
		worker.KeepRenewed(renewing, func() []string { return []string{f.peers[0].Address, f.peers[1].Address} }, slog.New(slog.DiscardHandler))
		close(renewed)
	}()
	defer func() { stop(); <-renewed }()
	forged, asMember, asWorker := f.forge(stolen, access.Holder{Role: access.RoleLeader, Name: "d9"}),
		f.forge(stolen, access.Holder{Role: access.RoleLeader, Name: f.nodes[0].Access().Enrolments()[0].Name}), f.forge(stolen, access.Holder{Role: access.RoleWorker})

	files := make([]map[string]string, len(f.peers))
	for i := range f.peers {
		files[i] = map[string]string{}
		for _, name := range []string{node.ClusterKeyFile, access.CertificateFile, access.AuthorityFile} {
			files[i][name] = readText(t, filepath.Join(f.dirs[i], name))
		}
	}

	// All leaders must be there.
	absent := (f.leads() + 1) % 3
	stops[absent]()
	eventually(t, "it is refused while a leader is away", func() bool {
		_, err := c.admin.RotateKey(t.Context(), false)
		return err != nil && strings.Contains(err.Error(), "there is no connection")
	})
	stops[absent] = f.start(absent, "", nil)
	for i := range f.peers {
		if f.keyOf(i) != stolen {
			t.Error("a refused rotation has changed the key")
		}
	}
	first, _ := access.FirstToken(stolen, "test-1a2b")
	eventually(t, "the cluster has a token that follows from its key", func() bool { return f.nodes[0].Access().Token(first.ID) != nil }) // it may have just started
	eventually(t, "the key is replaced", func() bool {
		_, err := c.admin.RotateKey(t.Context(), false)
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
	eventually(t, "the token that follows from the stolen key is revoked", func() bool { return f.nodes[0].Access().Token(first.ID) == nil })
	eventually(t, "all leaders have the new key", func() bool { return f.keyOf(0) != stolen && f.keyOf(0) == f.keyOf(1) && f.keyOf(1) == f.keyOf(2) })

	// While a machine has not renewed, certificates by the key before are accepted, but get no others.
	for name, thief := range map[string]*access.Credentials{"leader": forged, "member": asMember, "worker": asWorker} {
		if err := thief.Renew(t.Context(), []string{f.peers[f.leads()].Address}); err == nil {
			t.Errorf("Renew() of a thief as a %s = nil, want a refusal", name)
		}
	}
	eventually(t, "a worker that connects renews its certificate", func() bool { // once the leader that it connects to has renewed its own
		conn, err := worker.Dial(t.Context(), f.peers[0].Address)
		if err == nil {
			err = conn.Close()
		}
		if err != nil {
			t.Log(err)
		}
		return len(worker.Authorities()) > 1 || !worker.Authorities()[0].Equal(away.Authorities()[0])
	})
	if err := f.joins(0, forged, "d9"); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("before all have renewed, a certificate by the key before gets %v", err)
	}
	if err := away.Renew(t.Context(), []string{f.peers[0].Address}); err != nil {
		t.Error(err)
	}
	for i := range f.peers {
		eventually(t, "a certificate by the key before is refused", func() bool { return status.Code(f.joins(i, forged, "d9")) == codes.Unauthenticated })
	}
	// Those who know the authority before still get in.
	old, err := access.OpenCredentials(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Enroll(t.Context(), before, "", slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	c.enroll(access.RoleLeader, "d4")

	// One that has missed it, or whose machine lost power when it had stored the key and no certificate by it, goes on.
	missed := (f.leads() + 1) % 3
	stops[missed]()
	now := f.keyOf(missed)
	for name, text := range files[missed] {
		if err := os.WriteFile(filepath.Join(f.dirs[missed], name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stops[missed] = f.start(missed, "", nil)
	eventually(t, "a leader that has missed the key gets it", func() bool { return f.keyOf(missed) == now })
	stops[missed]()
	for _, name := range []string{access.CertificateFile, access.AuthorityFile} {
		if err := os.WriteFile(filepath.Join(f.dirs[missed], name), []byte(files[missed][name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stops[missed] = f.start(missed, "", nil)

	// Now: who is not connected has to join again, and so have those with strings of before.
	before = c.token(access.RoleWorker)
	eventually(t, "the key is replaced at once", func() bool {
		_, err := c.admin.RotateKey(t.Context(), true)
		if err != nil {
			t.Log(err)
		}
		return err == nil || strings.Contains(err.Error(), transport.ErrOtherAuthority.Error()) // it was, and the answer was lost
	})
	for i := range f.peers {
		eventually(t, "a leader sends the new authority only", func() bool { // which the one before has certified
			return strings.Count(readText(t, filepath.Join(f.dirs[i], access.AuthorityFile)), "BEGIN") == 1 &&
				strings.Count(readText(t, filepath.Join(f.dirs[i], access.CertificateFile)), "BEGIN") == 2
		})
	}
	if _, err := away.Dial(t.Context(), f.peers[0].Address); err == nil {
		t.Error("a worker that was away accepts the leaders")
	}
	machine, err := access.OpenCredentials(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := machine.Enroll(t.Context(), before, "", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), transport.ErrOtherAuthority.Error()) {
		t.Errorf("Enroll() with a string of before = %v, want an error", err)
	}
	token, err := f.nodes[f.leads()].CreateToken(t.Context(), access.RoleAdmin, "ann", 0)
	if err != nil {
		t.Fatal(err)
	}
	c.admin = c.client(token.Join)
	c.enroll(access.RoleWorker, "")
	for i := range f.peers {
		stops[i]()
	}
	for i := range f.peers {
		f.start(i, "", nil)
	}
	c.enroll(access.RoleWorker, "")
}
