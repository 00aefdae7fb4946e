package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/jobs"
)

// founders are leaders that start a cluster together.
type founders struct {
	t     *testing.T
	peers []replica.Member
	logs  []*logLines
	dirs  []string
	nodes []*node.Process
}

// logLines collects what a leader logs.
type logLines struct {
	t     *testing.T
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return l.t.Output().Write(b)
}

func (l *logLines) say(texts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
	})
}

// found starts a leader for each key.
func found(t *testing.T, keys ...access.Key) *founders {
	t.Helper()
	f := &founders{t: t}
	for i := range keys {
		l, err := net.Listen("tcp", outsideAddress(t)+":0") //nolint:noctx // opens at once
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // so that each gets another port
		f.peers = append(f.peers, replica.Member{ID: uint64(i + 1), Address: l.Addr().String(), Voter: true})
	}
	return f
}

// start starts the leader with an index, and returns what stops it.
func (f *founders) start(i int, cluster string, key *access.Key) (stop func()) {
	f.t.Helper()
	for len(f.nodes) <= i {
		f.nodes, f.dirs, f.logs = append(f.nodes, nil), append(f.dirs, f.t.TempDir()), append(f.logs, &logLines{t: f.t})
	}
	n, err := OpenLeader(f.t.Context(), node.ProcessConfig{
		DataDir: f.dirs[i], Listen: f.peers[i].Address, ClusterName: "test", ClusterID: cluster, ID: uint64(i + 1), Peers: f.peers, ClusterKey: key,
		Logger: slog.New(slog.NewTextHandler(f.logs[i], nil)),
	}, jobs.All(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.nodes[i] = n
	ctx, cancel := context.WithCancel(f.t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		err := n.Run(ctx)
		// One that is removed learns it from the log, or from the others.
		if _, refused := errors.AsType[*peer.RefusedError](err); err != nil && !refused && !errors.Is(err, replica.ErrRemoved) {
			f.t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		run.Wait()
	})
	f.t.Cleanup(stop)
	return stop
}

// adminFiles are the data directories with the access of an admin.
func (f *founders) adminFiles() (with []string) {
	for _, dir := range f.dirs {
		if exists(filepath.Join(dir, "admin.access")) {
			with = append(with, dir)
		}
	}
	return with
}

// TestFounders: leaders with one key start a cluster; each is enrolled, and can be removed for good.
func TestFounders(t *testing.T) {
	key := access.NewKey()
	f := found(t, key, key, key)
	var stops []func()
	for i := range f.peers {
		stops = append(stops, f.start(i, "test-1a2b", &key))
	}
	eventually(t, "one leads, and writes the access of an admin", func() bool { return len(f.adminFiles()) == 1 })
	c := secureCluster{t: t}
	c.admin = c.client(readText(t, filepath.Join(f.adminFiles()[0], "admin.access")))
	eventually(t, "all are enrolled", func() bool { return len(f.nodes[0].Access().Enrolments()) == 3 })
	c.enroll(access.RoleWorker, "")

	// One ends, and the others go on.
	leads := slices.Index(f.dirs, f.adminFiles()[0])
	stops[leads]()
	c.enroll(access.RoleWorker, "")
	stops[leads] = f.start(leads, "", nil)
	eventually(t, "it is back", func() bool {
		list, err := c.admin.Leaders(t.Context())
		return err == nil && !slices.ContainsFunc(list.Leaders, func(l api.LeaderNode) bool { return l.Status == api.LeaderSilent || l.Status == api.LeaderUnknown })
	})
	c.enroll(access.RoleLeader, "d4") // a further one gets the key by a string
	if got := f.adminFiles(); len(got) != 1 {
		t.Errorf("the access of an admin is in %v, want one", got)
	}

	if err := c.admin.RemoveLeader(t.Context(), uint64(leads+1), false); err != nil {
		t.Fatal(err)
	}
	removed, err := access.OpenCredentials(f.dirs[leads])
	if err != nil {
		t.Fatal(err)
	}
	if err := removed.Renew(t.Context(), []string{f.peers[(leads+1)%3].Address}); err == nil || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("Renew() of a founder that was removed = %v, want a refusal", err)
	}
}

// TestFoundersThatDiffer: each of two leaders says what is wrong with the other, and how to go on.
func TestFoundersThatDiffer(t *testing.T) {
	one, two := access.NewKey(), access.NewKey()
	for name, test := range map[string]struct {
		clusters [2]string
		keys     [2]*access.Key
		say      string
	}{
		"key":  {[2]string{"test-1a2b", "test-1a2b"}, [2]*access.Key{&one, &two}, "its cluster key is not that of this leader"},
		"list": {[2]string{"test-1a2b", "test-3c4d"}, [2]*access.Key{&one, &one}, "the same --peers"},
	} {
		t.Run(name, func(t *testing.T) {
			f := found(t, one, two)
			for i := range f.peers {
				f.start(i, test.clusters[i], test.keys[i])
			}
			for i := range f.peers {
				eventually(t, "it says what differs", func() bool { return f.logs[i].say("no link to a leader", f.peers[1-i].Address, test.say) })
			}
		})
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
