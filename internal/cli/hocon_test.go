package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// leaderConf has the keys of the original's application.conf of a leader.
const leaderConf = `{
  cluster-id = 0,
  raft = { min-timeout = 15 seconds, terminate-after = None }
  self = {
    id = 1
    id = ${?NO_SUCH_VARIABLE}
    schema = "http"
    host = localhost
    port = 7550 // ours
  },
  leaders = [
    { id = 0, schema = "http", host = kaladin-00, port = 7551 }
    { id = 2, schema = "https", host = "kaladin-02", port = 7552 }
  ]
  workers = [ { id = 5, host = spren-05, port = 7651 } ]
}`

// readConf reads a file, and returns the variables that it stands for, and the warnings.
func readConf(t *testing.T, command, text string, env map[string]string) (a *app, warnings string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "application.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a = &app{stderr: newConsole(w), typed: map[string]bool{}, env: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
	err = a.readOriginal(&cobra.Command{Use: command}, path)
	_ = w.Close()
	var said bytes.Buffer
	if _, err := said.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return a, said.String(), err
}

func TestLeaderOfAnApplicationConf(t *testing.T) {
	a, warnings, err := readConf(t, "leader", leaderConf, map[string]string{"BRIDGEFOUR_PORT": "7000"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "these keys mean nothing here: cluster-id, leaders.schema, raft\n"; !strings.HasSuffix(warnings, want) {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
	var f leaderFlags
	cmd := &cobra.Command{Use: "leader"}
	f.add(cmd)
	if err := cmd.ParseFlags([]string{"--data-dir", t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if err := a.leaderFromContainer(cmd, &f); err != nil {
		t.Fatal(err)
	}
	if err := a.resolveLeader(cmd, &f); err != nil {
		t.Fatal(err)
	}
	peers := []replica.Member{
		{ID: 1, Address: "kaladin-00:7551", Voter: true}, {ID: 2, Address: "localhost:7000", Voter: true}, {ID: 3, Address: "kaladin-02:7552", Voter: true},
	}
	if f.ID != 2 || f.Listen != "localhost:7000" || !slices.Equal(f.Peers, peers) || !slices.Equal(f.Workers, []node.ExpectedWorker{{ID: 5, Address: "spren-05:7651"}}) {
		t.Errorf("leader %d at %s of %v with workers %v", f.ID, f.Listen, f.Peers, f.Workers)
	}
}

func TestWorkerOfAnApplicationConf(t *testing.T) {
	a, warnings, err := readConf(t, "worker", `
		self { id = 3, max-slots = 2, host = localhost, port = 7651, probing-timeout = 0.5 seconds }
		leader { host = kaladin-00, port = 7550 }`, nil)
	if err != nil || !strings.HasSuffix(warnings, "nothing here: self.probing-timeout\n") {
		t.Fatalf("%v, warnings %q", err, warnings)
	}
	for name, want := range map[string]string{
		"WORKER_ID": "3", "BRIDGEFOUR_SLOTS": "2", "BRIDGEFOUR_HOST": "localhost", "BRIDGEFOUR_PORT": "7651", "LEADER_HOST": "kaladin-00", "LEADER_PORT": "7550",
	} {
		if got, ok := a.env(name); !ok || got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestApplicationConfErrors(t *testing.T) {
	for text, want := range map[string]string{"self {": "is not HOCON", "[1]": "must hold keys and values", "a = ${b}": "is not HOCON"} {
		if _, _, err := readConf(t, "leader", text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q = %v, want %q", text, err, want)
		}
	}
	if _, _, err := readConf(t, "run", "", nil); err == nil || !strings.Contains(err.Error(), "leaders and workers of the original system") {
		t.Errorf("of another command = %v", err)
	}
}

func FuzzApplicationConf(f *testing.F) {
	f.Add(leaderConf)
	f.Add("self = 1, leaders = {}, workers = [1, null], leader")
	f.Fuzz(func(t *testing.T, text string) {
		_, _, _ = readConf(t, "leader", text, nil)
	})
}
