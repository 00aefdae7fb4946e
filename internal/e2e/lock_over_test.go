package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// TestLocksOutliveTheirJob ends a job in each way in which attempts of it outlive it, here for their whole grace, for they ignore SIGTERM. The next job with its lock, or
// on its output, begins when the last of them is gone.
func TestLocksOutliveTheirJob(t *testing.T) {
	t.Parallel()
	stop := func(s *overScene) { s.stop() }
	for name, test := range map[string]struct {
		first api.JobRequest
		end   func(s *overScene)
	}{
		"stop":          {api.JobRequest{}, stop},
		"max fails":     {api.JobRequest{MaxFails: "0"}, func(s *overScene) { write(s.t, s.path("fail"), "") }},
		"first success": {api.JobRequest{FirstSuccess: true}, func(s *overScene) { write(s.t, s.path("succeed"), "") }},
		"output":        {api.JobRequest{Output: "out"}, stop},
		"leader is killed": {api.JobRequest{Grace: "6s"}, func(s *overScene) {
			s.stop()
			s.leader.kill()
			s.startLeader()
		}},
		"leader is killed before": {api.JobRequest{Grace: "4s"}, func(s *overScene) {
			s.leader.kill()
			s.startLeader()
			s.stop()
		}},
		"worker is killed": {api.JobRequest{Grace: "3s"}, func(s *overScene) {
			s.stop()
			s.both[0].kill()
			s.worker("worker-1")
		}},
		"all are killed": {api.JobRequest{Grace: "30s"}, func(s *overScene) {
			s.stop()
			for _, p := range append(s.both, s.leader) {
				p.kill()
			}
			s.startLeader()
			s.workers(2)
		}},
		"retry": {api.JobRequest{}, func(s *overScene) {
			s.stop()
			s.ends(1)
			if code, _, stderr := s.cli("retry", "1"); code != 0 {
				s.t.Fatalf("retry: exit code %d: %s", code, stderr)
			}
			s.stop()
		}},
		"forgotten": {api.JobRequest{}, func(s *overScene) {
			s.stop()
			s.ends(1)
			if code, _, stderr := s.cli("rm", "1"); code != 0 {
				s.t.Fatalf("rm: exit code %d: %s", code, stderr)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newOverScene(t, &test.first)
			test.end(s)
			s.check()
		})
	}
}

// overScene is a job of two tasks that ignore SIGTERM, and that write to a ledger for as long as they live, and a second job that waits for it.
type overScene struct {
	*cluster

	both []*process // workers
}

func newOverScene(t *testing.T, first *api.JobRequest) *overScene {
	t.Helper()
	s := &overScene{cluster: newCluster(t)}
	s.both = s.workers(2, "--slots", "2")
	write(t, s.path("task.sh"), `trap '' TERM HUP INT
while :; do
	echo first $1 >>"$0/ledger"
	if [ $1 = 2 ] && [ -e "$0/fail" ]; then exit 65; fi
	if [ $1 = 2 ] && [ -e "$0/succeed" ]; then exit 0; fi
	sleep 0.02
done`)
	second := &api.JobRequest{Range: numbers(1), Program: api.Program{Command: []string{"sh", "-c", `echo second >>"$0/ledger"`, s.dir}}}
	if first.Output != "" {
		first.Output, second.Output, second.Overwrite = s.path(first.Output), s.path(first.Output), true
	} else {
		first.Locks, second.Locks = []string{"x/y"}, []string{"x"}
	}
	first.Range, first.Program.Command = numbers(2), []string{"sh", "-c", readFile(t, s.path("task.sh")), s.dir, "{}"}
	s.submit(first)
	until(t, "both tasks run", func() bool {
		text := readFile(t, s.path("ledger"))
		return strings.Contains(text, "first 1") && strings.Contains(text, "first 2")
	})
	s.submit(second)
	until(t, "the second job waits", func() bool { return s.job(2).Status == api.JobWaiting })
	return s
}

func (s *overScene) stop() {
	s.t.Helper()
	if code, _, stderr := s.cli("stop", "1"); code != 0 {
		s.t.Fatalf("stop: exit code %d: %s", code, stderr)
	}
}

// check checks, at the end, that nothing of the first job has run after the second one has begun.
func (s *overScene) check() {
	s.t.Helper()
	s.done(2)
	s.untilGone()
	lines := strings.Split(strings.TrimSpace(readFile(s.t, s.path("ledger"))), "\n")
	for i, line := range lines {
		if (line == "second") != (i == len(lines)-1) {
			s.t.Fatalf("line %d of %d of the ledger is %q: want the second job once, after all of the first one", i+1, len(lines), line)
		}
	}
	if got := s.listLocks(); len(got) > 0 {
		s.t.Errorf("locks are left: %+v", got)
	}
}

// TestLockOverIsSaid: lists, explanations and refusals say that the holder has ended.
func TestLockOverIsSaid(t *testing.T) {
	t.Parallel()
	s := newOverScene(t, &api.JobRequest{Grace: "1h"})
	s.stop()
	s.ends(1)
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"locks"}, 0, "job 1 (ended, its last attempts are being stopped on worker "},
		{[]string{"explain", "2"}, 0, "an exclusive lock on x, held by job 1 (ended, its last attempts are being stopped on worker "},
		{[]string{"explain", "1"}, 0, "it has its locks until its last attempts have ended: its last attempts are being stopped on worker "},
		{[]string{"lock", "x", "--no-wait", "--", "true"}, 75, "job 1"},
		{[]string{"submit", "--lock", "x", "--on-conflict", "fail", "--range", "1-1", "--", "true"}, 2, "job 1, which has ended and whose last attempts may still run, holds"},
		{[]string{"locks", "release", "x", "--holder", "job 1"}, 2, "job 1 has ended, and has its locks until its last attempts have"},
	} {
		code, stdout, stderr := s.cli(test.args...)
		if code != test.code || !strings.Contains(stdout+stderr, test.says) {
			t.Errorf("%s: exit code %d: %s; want %d and %q", fmt.Sprint(test.args), code, stdout+stderr, test.code, test.says)
		}
	}
	for _, p := range s.both { // their keepers end what they run
		p.kill()
	}
	s.both = s.workers(2, "--slots", "2")
	s.check()
}
