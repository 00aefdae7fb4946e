package cli

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/replica"
)

func TestParsePeers(t *testing.T) {
	got, err := parsePeers("3=c:3, 1=http://a:1/,2=b")
	want := []replica.Member{
		{ID: 1, Address: "a:1", Voter: true}, {ID: 2, Address: "b:6550", Voter: true}, {ID: 3, Address: "c:3", Voter: true},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("parsePeers = %+v, %v; want %+v", got, err, want)
	}
	for text, say := range map[string]string{
		"":              "want ID=host:port",
		"a:1":           "want ID=host:port",
		"0=a:1":         "an ID of 1 or more",
		"x=a:1":         "want ID=host:port",
		"1=":            "empty address",
		"1=a:0":         "want host:port",
		"1=a:99999":     "want host:port",
		"1=a:1,1=b:1":   "share an ID or an address",
		"1=a:1,2=a:1":   "share an ID or an address",
		"1=a:1,2=b:1,,": "want ID=host:port",
	} {
		if got, err := parsePeers(text); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("parsePeers(%q) = %+v, %v; want an error that says %q", text, got, err, say)
		}
	}
}

// configOf is what leader makes of its environment and flags.
func configOf(t *testing.T, env map[string]string, args ...string) (node.ProcessConfig, error) {
	t.Helper()
	a := &app{stderr: newConsole(os.Stderr), typed: map[string]bool{}, env: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
	var f leaderFlags
	cmd := &cobra.Command{Use: "leader"}
	f.add(cmd)
	if err := cmd.ParseFlags(append(args, "--data-dir", t.TempDir())); err != nil {
		t.Fatal(err)
	}
	if err := a.leaderFromContainer(cmd, &f); err != nil {
		return node.ProcessConfig{}, err
	}
	err := a.resolveLeader(cmd, &f)
	return f.ProcessConfig, err
}

// TestLeadersOfTheOriginalsContainers: each knows its own number and how it names the others, and all must come to one cluster.
func TestLeadersOfTheOriginalsContainers(t *testing.T) {
	var ids []string
	for own := range 3 {
		env := map[string]string{"LEADER_ID": fmt.Sprint(own), "BRIDGEFOUR_HOST": "0.0.0.0", "BRIDGEFOUR_PORT": fmt.Sprint(6550 + own)}
		for i, other := range []int{(own + 1) % 3, (own + 2) % 3} {
			prefix := fmt.Sprintf("STANDBY_LEADER_%d_", i+1)
			env[prefix+"ID"], env[prefix+"HOST"], env[prefix+"PORT"] = fmt.Sprint(other), fmt.Sprintf("kaladin-0%d", other), fmt.Sprint(6550+other)
		}
		cfg, err := configOf(t, env)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.ID != uint64(own+1) || len(cfg.Peers) != 3 || cfg.Listen != fmt.Sprintf("0.0.0.0:%d", 6550+own) {
			t.Errorf("leader %d = %+v, want number %d of three, listening where it was told to", own, cfg, own+1)
		}
		for _, p := range cfg.Peers {
			if want := fmt.Sprintf("kaladin-0%d:%d", p.ID-1, 6549+p.ID); p.ID != cfg.ID && p.Address != want {
				t.Errorf("leader %d looks for %d at %s, want %s", own, p.ID, p.Address, want)
			}
		}
		ids = append(ids, cfg.ClusterID)
	}
	if ids[0] == "" || ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("they come to the clusters %q, want one", ids)
	}
	if cfg, err := configOf(t, map[string]string{"LEADER_ID": "0"}); err != nil || cfg.ID != 1 || len(cfg.Peers) != 0 {
		t.Errorf("a leader without standbys = %+v, %v; want number 1, alone", cfg, err)
	}
	if _, err := configOf(t, map[string]string{"LEADER_ID": "first"}); err == nil {
		t.Error("a number that is none was taken")
	}
}

// TestComposeFileOfTheOriginal: the third leader of its main branch names itself as a standby, and not the second.
func TestComposeFileOfTheOriginal(t *testing.T) {
	env := map[string]string{
		"LEADER_ID": "2", "BRIDGEFOUR_HOST": "0.0.0.0", "BRIDGEFOUR_PORT": "6552",
		"WORKER1_HOST": "spren-01", "WORKER1_PORT": "6651", "WORKER2_HOST": "spren-02", "WORKER2_PORT": "6652",
		"STANDBY_LEADER_1_ID": "0", "STANDBY_LEADER_1_HOST": "kaladin-00", "STANDBY_LEADER_1_PORT": "6550",
		"STANDBY_LEADER_2_ID": "2", "STANDBY_LEADER_2_HOST": "kaladin-02", "STANDBY_LEADER_2_PORT": "6552",
	}
	cfg, err := configOf(t, env)
	if err != nil || cfg.ID != 3 || len(cfg.Peers) != 0 || !slices.Equal(cfg.Join, []string{"kaladin-00:6550"}) || cfg.Advertise != "kaladin-02:6552" {
		t.Errorf("kaladin-02 = %+v, %v; want that it joins kaladin-00 as leader 3", cfg, err)
	}
	if want := []node.ExpectedWorker{{ID: 1, Address: "spren-01:6651"}, {ID: 2, Address: "spren-02:6652"}}; !slices.Equal(cfg.Workers, want) {
		t.Errorf("workers %v, want %v", cfg.Workers, want)
	}
	// With the others it is a leader of three that also names itself.
	env["STANDBY_LEADER_3_ID"], env["STANDBY_LEADER_3_HOST"], env["STANDBY_LEADER_3_PORT"] = "1", "kaladin-01", "6551"
	if cfg, err := configOf(t, env); err != nil || cfg.ID != 3 || len(cfg.Peers) != 3 || len(cfg.Join) != 0 {
		t.Errorf("with all leaders = %+v, %v; want three", cfg, err)
	}
	// Before leaders had ids, those of workers counted from 0.
	cfg, err = configOf(t, map[string]string{"WORKER1_HOST": "spren-01", "WORKER1_PORT": "5551", "WORKER2_PORT": "5552"})
	if want := []node.ExpectedWorker{{ID: 0, Address: "spren-01:5551"}, {ID: 1, Address: "localhost:5552"}}; err != nil || !slices.Equal(cfg.Workers, want) {
		t.Errorf("workers %v, %v; want %v", cfg.Workers, err, want)
	}
	for name, value := range map[string]string{"WORKER1_ID": "x", "STANDBY_LEADER_1_ID": "-1", "WORKER1_HOST": "a b", "LEADER_ID": "4294967296"} {
		wrong := maps.Clone(env)
		wrong[name] = value
		if _, err := configOf(t, wrong); err == nil {
			t.Errorf("%s=%s was accepted", name, value)
		}
	}
}

func TestPeersKnowThemselves(t *testing.T) {
	const peers = "1=10.0.0.1:6550,2=10.0.0.2:6550,3=10.0.0.3:6550"
	cfg, err := configOf(t, nil, "--peers", peers, "--id", "2")
	if err != nil || cfg.Listen != "10.0.0.2:6550" || cfg.Advertise != cfg.Listen {
		t.Errorf("--id 2 = %+v, %v; want it to listen at its own address of the list", cfg, err)
	}
	other, err := configOf(t, nil, "--peers", peers, "--listen", "10.0.0.3:6550")
	if err != nil || other.ID != 3 || other.ClusterID != cfg.ClusterID {
		t.Errorf("--listen = %+v, %v; want number 3 of the same cluster", other, err)
	}
	named, err := configOf(t, nil, "--peers", peers, "--id", "2", "--cluster-name", "nightly")
	if err != nil || node.ClusterNameOf(named.ClusterID) != "nightly" {
		t.Errorf("--cluster-name = %+v, %v; want it in the cluster's id", named, err)
	}
}
