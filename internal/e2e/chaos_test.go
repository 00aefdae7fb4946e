package e2e

import (
	"os"
	"os/exec"
	"testing"
)

// TestChaos plays the chaos script with processes, and a seed that kills a leader and two workers, and starts one of them again.
func TestChaos(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "../../deploy/chaos/chaos.sh")
	cmd.Env = append(os.Environ(), "SEED=3", "TASKS=6", "SLEEP=2", "BRIDGEFOUR="+binary)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
