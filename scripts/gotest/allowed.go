package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// allowance allows skips.
type allowance struct {
	match *regexp.Regexp    // of NAME: REASON
	when  func(string) bool // of the first submatch; nil: always
	why   string
}

// allowances are the skips that are expected.
func allowances() []allowance {
	return []allowance{
		{regexp.MustCompile(`internal/sim\.TestSoak:`), nil, "runs for a given time: make soak"},
		{regexp.MustCompile(`internal/sim\.TestTenThousandWorkers:`), nil, "too slow with the race detector, or for make test-quick: make test-long"},
		{
			regexp.MustCompile(`only root can|needs root|cannot be (?:made|mounted|told) here|cannot make network namespaces|: mount: |skipped: (?:making|mounting)`),
			unprivileged, "needs root that may mount",
		},
		{regexp.MustCompile(`there is no (\S+) on this machine`), missing, "scripts/test.sh installs it on Debian as root"},
		{regexp.MustCompile(`dockerd does not start here`), nil, "a machine, or a container, that lets no dockerd run"},
		{regexp.MustCompile(`systemd does not boot here`), nil, "a machine, or a container, whose control groups no second systemd can use"},
		{regexp.MustCompile(`commit (\w+) is not in the history`), notInHistory, "a shallow clone, or no repository"},
		{regexp.MustCompile(`no IPv6 here`), noIPv6, "the machine has none"},
		{regexp.MustCompile(`internal/blob\.TestUncache: .*(?:kernel does not tell|in memory only)`), nil, "needs a disk under the temporary folder, and Linux 6.5 or newer"},
		{regexp.MustCompile(`no freezer of control groups`), noFreezer, "needs root, and control groups version 1: nothing else keeps a process from ending at SIGKILL"},
		{regexp.MustCompile(`start in a sandbox \(Landlock`), noLandlock, "needs Landlock, of Linux 6.2 or newer"},
		{regexp.MustCompile(`is not in the history of this checkout`), nil, "a shallow clone, or no git"},
	}
}

func allowanceFor(s skip, list []allowance) (why string, ok bool) {
	for _, a := range list {
		m := a.match.FindStringSubmatch(s.name + ": " + s.reason)
		if m != nil && (a.when == nil || a.when(m[len(m)-1])) {
			return a.why, true
		}
	}
	return "", false
}

func missing(command string) bool {
	_, err := exec.LookPath(command)
	return err != nil
}

func notInHistory(commit string) bool {
	return exec.Command("git", "cat-file", "-e", commit+"^{commit}").Run() != nil //nolint:noctx // answers at once
}

func noIPv6(string) bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err != nil
}

// noLandlock asks for the version of the interface.
func noLandlock(string) bool {
	const createRuleset, version, versionMin = 444, 1, 3
	n, _, errno := syscall.Syscall(createRuleset, 0, 0, version)
	return errno != 0 || n < versionMin
}

func noFreezer(string) bool {
	_, err := os.Stat("/sys/fs/cgroup/freezer")
	return err != nil || unprivileged("")
}

// unprivileged reports whether this process lacks CAP_SYS_ADMIN, which capabilities(7) numbers 21.
func unprivileged(string) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	_, line, _ := strings.Cut(string(status), "CapEff:")
	line, _, _ = strings.Cut(line, "\n")
	caps, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err != nil || caps&(1<<21) == 0
}
