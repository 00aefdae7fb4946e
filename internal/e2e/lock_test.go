package e2e

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lockScene is a command that holds a lock, started by "bridgefour lock", and another that waits for it. The first one has a process that has left it and ignores
// SIGTERM. Both write their names and fences to a ledger.
type lockScene struct {
	*cluster

	first, second *process
}

// lockScript is the command of the first one.
const lockScript = `
echo $$ >"$1/pid"
setsid sh "$1/left.sh" "$1" &
until [ -e "$1/go" ]; do sleep 0.02; done
`

// newLockScene starts the scene, with another time to live if that is too short for this machine: the first one loses its lock before the second one waits.
func newLockScene(t *testing.T, ttl time.Duration) (s *lockScene) {
	t.Helper()
	for waits := false; !waits; ttl *= 2 {
		s = &lockScene{cluster: newCluster(t)}
		write(t, s.path("left.sh"), `trap '' TERM HUP INT; while :; do echo first $B4_LOCK_FENCE >>"$1/ledger"; sleep 0.02; done`)
		write(t, s.path("hold.sh"), lockScript)
		s.first = s.lock("first", "--ttl", ttl.String(), "--", "sh", s.path("hold.sh"), s.dir)
		until(t, "the first command holds the lock", func() bool { return exists(s.path("ledger")) || s.first.hasEnded() })
		s.second = s.lock("second", "--", "sh", "-c", `echo second $B4_LOCK_FENCE >>"$0/ledger"`, s.dir)
		until(t, "the second command waits", func() bool {
			_, list, _ := s.cli("locks")
			waits = strings.Contains(list, "waits")
			return waits || s.first.hasEnded()
		})
	}
	return s
}

func (s *lockScene) lock(name string, args ...string) *process {
	s.t.Helper()
	return s.start(name, append([]string{"lock", "x", "y/" + name, "--cluster", s.known}, args...)...)
}

// check checks, at the end, that the second command has run once, and nothing of the first one after it.
func (s *lockScene) check() {
	s.t.Helper()
	s.second.wantExit(0)
	s.untilGone()
	lines := strings.Split(strings.TrimSpace(readFile(s.t, s.path("ledger"))), "\n")
	var fences [2]uint64
	for i, line := range lines {
		name, fence, _ := strings.Cut(line, " ")
		last := i == len(lines)-1
		if (name == "second") != last {
			s.t.Fatalf("line %d of %d of the ledger is %q: want the second command once, after all of the first one", i+1, len(lines), line)
		}
		n, err := strconv.ParseUint(fence, 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		if last {
			fences[1] = n
		} else {
			fences[0] = n
		}
	}
	if fences[0] == 0 || fences[1] <= fences[0] {
		s.t.Errorf("fences %v, want that they grow", fences)
	}
}

// TestLockIsSafe loses a part of what holds a lock: the next holder begins when nothing of the one before is left.
func TestLockIsSafe(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ttl  time.Duration
		lose func(s *lockScene)
	}{
		"lock is killed": {time.Second, func(s *lockScene) { s.first.kill() }},
		"lock is stopped": {time.Second, func(s *lockScene) {
			s.first.signal(syscall.SIGSTOP)
			s.untilGone()
			s.second.wantExit(0)
			s.first.signal(syscall.SIGCONT)
			s.first.wantExit(76)
		}},
		"lock is interrupted": {30 * time.Second, func(s *lockScene) {
			s.first.signal(syscall.SIGINT)
			s.first.wantExit(128 + int(syscall.SIGTERM))
		}},
		"lock is quit": {30 * time.Second, func(s *lockScene) {
			s.first.signal(syscall.SIGQUIT)
			s.first.wantExit(128 + int(syscall.SIGTERM))
		}},
		"command is killed": {30 * time.Second, func(s *lockScene) {
			pid, err := strconv.Atoi(strings.TrimSpace(readFile(s.t, s.path("pid"))))
			if err == nil {
				err = syscall.Kill(pid, syscall.SIGKILL)
			}
			if err != nil {
				s.t.Fatal(err)
			}
			s.first.wantExit(128 + int(syscall.SIGKILL))
		}},
		"command is stopped": {time.Second, func(s *lockScene) {
			pid, err := strconv.Atoi(strings.TrimSpace(readFile(s.t, s.path("pid"))))
			if err == nil {
				err = syscall.Kill(pid, syscall.SIGSTOP)
			}
			if err != nil {
				s.t.Fatal(err)
			}
			s.first.kill()
		}},
		"leader is stopped": {time.Second, func(s *lockScene) {
			s.leader.signal(syscall.SIGSTOP)
			s.first.wantExit(76)
			s.untilGone()
			s.leader.signal(syscall.SIGCONT)
		}},
		"leader is restarted": {30 * time.Second, func(s *lockScene) {
			s.leader.kill()
			s.startLeader()
			write(s.t, s.path("go"), "")
			s.first.wantExit(0)
		}},
		"lock is taken away": {time.Second, func(s *lockScene) {
			_, list, _ := s.cli("locks", "--json")
			_, holder, _ := strings.Cut(list, `"holder":"`)
			holder, _, _ = strings.Cut(holder, `"`)
			if code, _, stderr := s.cli("locks", "release", "x", "--holder", holder); code != 0 {
				s.t.Fatalf("release: exit code %d: %s", code, stderr)
			}
			s.first.wantExit(76)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLockScene(t, test.ttl)
			test.lose(s)
			if name == "lock is taken away" { // by force: both may write
				s.second.wantExit(0)
				s.untilGone()
				return
			}
			s.check()
		})
	}
}

// TestLockSurvivesLeaders: a command holds its lock while each of three leaders is killed, one after the other.
func TestLockSurvivesLeaders(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	p := g.start("holder", "lock", "x", "--ttl", "20s", "--cluster", g.known, "--", "sh", "-c", "until [ -e go ]; do sleep 0.02; done")
	until(t, "the lock is held", func() bool { _, list, _ := g.cli("locks"); return strings.Contains(list, "held") })
	_, before, _ := g.cli("locks", "--json")
	for range 3 {
		n := g.leading()
		n.kill()
		g.leading()
		n.start()
	}
	g.leading()
	_, after, _ := g.cli("locks", "--json")
	fence := func(list string) string {
		_, text, _ := strings.Cut(list, `"fence":`)
		text, _, _ = strings.Cut(text, ",")
		return text
	}
	if fence(before) == "" || fence(before) != fence(after) {
		t.Errorf("locks %s, and then %s: want the same fence", before, after)
	}
	write(t, g.path("go"), "")
	p.wantExit(0)
	until(t, "nothing is locked", func() bool { _, list, _ := g.cli("locks", "--json"); return strings.Contains(list, `"locks":[]`) })
}
