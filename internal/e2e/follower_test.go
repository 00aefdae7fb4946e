package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// TestFollowers sends requests to followers, on one group.
func TestFollowers(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	g.workers(1)
	for _, test := range []struct {
		name string
		run  func(*group)
	}{
		{"consistency", askedConsistency},
		{"long poll", longPoll},
		{"writes", forwardedWrites},
		{"forwarded", forwardedReads},
		{"events", eventsAnywhere},
		{"consensus", consensus},
		{"commands", commandsAtFollower},
	} {
		t.Run(test.name, func(t *testing.T) {
			own := *g
			own.cluster = g.in(newLab(t))
			own.nodes = nil
			for _, n := range g.nodes {
				copied := *n
				copied.g = &own
				own.nodes = append(own.nodes, &copied)
			}
			test.run(&own)
		})
	}
}

// askedConsistency: each answer names its log position, and is as fresh as requested.
func askedConsistency(g *group) {
	t := g.t
	for i := range 20 {
		name := fmt.Sprintf("read %d", i)
		var a answer
		until(t, "a submit is accepted", func() bool {
			a = g.leading().request(http.MethodPost, "/v1/jobs", tiny(name, "true"))
			return a.code == http.StatusCreated
		})
		job := decode[api.Job](t, a)
		index := a.number("X-Bridgefour-Index")
		if index == 0 {
			t.Fatalf("no index in %v", a.header)
		}
		path := fmt.Sprintf("/v1/jobs/%d", job.ID)
		for _, n := range g.nodes {
			for _, query := range []string{fmt.Sprintf("?consistency=index&min_index=%d", index), "?consistency=strong"} {
				read := n.settled(http.MethodGet, path+query, "")
				if got := decode[api.Job](t, read); got.Name != name || read.number("X-Bridgefour-Index") < index {
					t.Errorf("%v: %s%s = %v, want %q, of log position %d or later", n, path, query, read, name, index)
				}
			}
		}
	}
	for _, n := range g.nodes {
		for _, path := range []string{"/v1/jobs", "/v1/cluster", "/v1/workers", "/v1/leaders", "/cluster", "/job/list", "/raft/state", "/v1/jobs/1", "/job/status/1", "/v1/jobs/999999"} {
			until(t, fmt.Sprintf("%v names the leader, its log position and its age at %s", n, path), func() bool {
				leads, a := g.leading(), n.get(path)
				return a.number("X-Bridgefour-Leader") == leads.id && a.number("X-Bridgefour-Index") > 0 &&
					(a.header.Get("X-Bridgefour-Age") == "0" || n.listen != leads.listen && a.header.Get("X-Bridgefour-Age") != "")
			})
		}
		for _, query := range []string{"?consistency=eventual", "?consistency=index&min_index=x", "?min_index=-1"} {
			if a := n.get("/v1/jobs" + query); a.code < 400 || a.code >= 500 {
				t.Errorf("%v: %s = %v, want a problem of the request", n, query, a)
			}
		}
		n.settled(http.MethodGet, "/readyz", "")
	}
}

// longPoll: a follower holds a read until the job has ended.
func longPoll(g *group) {
	t := g.t
	id := g.submit(&api.JobRequest{Range: numbers(1), Program: item(waitFor(g.path("gate")))})
	answers := make(chan answer)
	for _, n := range g.nodes {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		go func() {
			for {
				a := requestAt(ctx, direct, http.MethodGet, fmt.Sprintf("http://%s/v1/jobs/%d?wait=40s&consistency=strong", n.listen, id), "")
				if a.code != http.StatusServiceUnavailable || ctx.Err() != nil {
					answers <- a
					return
				}
			}
		}()
	}
	g.untilMap(id, "running", func(s api.Stage) bool { return s.Running == 1 })
	select {
	case a := <-answers:
		t.Errorf("answered while the job runs: %v", a)
	default:
	}
	write(t, g.path("gate"), "")
	for range g.nodes {
		if job := decode[api.Job](t, <-answers); job.Status != api.JobDone {
			t.Errorf("the job is %s, want done", job.Status)
		}
	}
}

// forwardedWrites: a follower forwards writes to the leader, or redirects a client that prefers that.
func forwardedWrites(g *group) {
	t := g.t
	follows := g.followers(g.leading())[0]
	for _, write := range [][2]string{
		{http.MethodPost, "/v1/jobs"},
		{http.MethodPost, "/v1/jobs/1/stop"},
		{http.MethodPost, "/v1/jobs/1/retry"},
		{http.MethodPost, "/v1/workers/1/drain"},
		{http.MethodDelete, "/v1/workers/1"},
		{http.MethodPost, "/v1/leaders"},
		{http.MethodDelete, "/v1/leaders/1?force=true"},
	} {
		until(t, fmt.Sprintf("a follower redirects %q to the leader", write), func() bool {
			leads := g.leading()
			if leads == follows {
				follows = g.followers(leads)[0]
			}
			a := follows.request(write[0], write[1], "{}", "Prefer", "redirect")
			return a.code == http.StatusTemporaryRedirect && a.header.Get("Location") == "http://"+leads.address+write[1]
		})
	}
	if a := follows.settled(http.MethodPut, "/job/stop/999", ""); a.code != http.StatusOK || strings.TrimSpace(a.body) != `{"type":"Missing"}` {
		t.Errorf("a write of the original's routes = %v, want the leader's answer", a)
	}
	url := "http://" + follows.address + "/v1/jobs"
	for i := range 20 { // each is visible here at once
		job := decode[api.Job](t, follows.settled(http.MethodPost, "/v1/jobs", tiny(fmt.Sprintf("forwarded %d", i), "true")))
		if a := follows.get(fmt.Sprintf("/v1/jobs/%d", job.ID)); a.code != http.StatusOK {
			t.Errorf("job %d after its submit, at the same follower = %v", job.ID, a)
		}
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Logf("left out: there is no curl here")
		return
	}
	var answered api.Job
	out := sh(t, "/", `curl --silent --fail --retry 9 --header 'Content-Type: application/json' --data "$1" "$2"`, tiny("by curl", "true"), url)
	if err := json.Unmarshal(out, &answered); err != nil || g.current(answered.ID).Name != "by curl" {
		t.Errorf("curl: %s: %v", out, err)
	}
}

// forwardedReads: followers also answer what only the leader knows.
func forwardedReads(g *group) {
	t := g.t
	id := g.submit(&api.JobRequest{
		Range: numbers(3), Program: item(log("log of $1"), printItem, unless("$1 != 3", waitFor(g.path("gate")))),
	})
	g.untilMap(id, "2 done, 1 running", func(s api.Stage) bool { return s.Done == 2 && s.Running == 1 })
	paths := []string{"tasks", "tasks?status=running", "tasks/map/2", "tasks/map/7", "explain", "logs", "logs?task=map/1"}
	for i, p := range paths {
		paths[i] = fmt.Sprintf("/v1/jobs/%d/%s", id, p)
	}
	paths = append(paths, fmt.Sprintf("/job/%d", id), "/job/list")
	for _, path := range paths {
		g.inOneTerm(func(leads *node) (wrong string) {
			g.untilMap(id, "1 running", func(s api.Stage) bool { return s.Running == 1 }) // after an election its worker has to come back
			want := leads.settled(http.MethodGet, path, "")
			for _, n := range g.nodes {
				if got := n.settled(http.MethodGet, path, ""); got.code != want.code || sorted(got.body) != sorted(want.body) || got.header.Get("Content-Type") != want.header.Get("Content-Type") {
					wrong = fmt.Sprintf("%v: %s = %v\nwant %v", n, path, got, want)
				}
			}
			return wrong
		})
	}
	// The views of a follower have it too, from the leader.
	for _, n := range g.followers(g.leading()) {
		until(t, "a follower shows what runs", func() bool {
			job := decode[api.Job](t, n.get(fmt.Sprintf("/v1/jobs/%d", id)))
			workers := decode[api.WorkerList](t, n.get("/v1/workers"))
			return job.Status == api.JobRunning && job.Stages[0].Running == 1 && len(workers.Workers) == 1 && workers.Workers[0].Busy == 1
		})
	}
	write(t, g.path("gate"), "")
	g.done(id)
	for _, n := range g.nodes {
		a := n.settled(http.MethodGet, fmt.Sprintf("/v1/jobs/%d/result?consistency=strong", id), "")
		if a.code != http.StatusOK || a.body != "1\n2\n3\n" {
			t.Errorf("%v: result = %v", n, a)
		}
	}
}

// sorted sorts the lines of a text: logs of several tasks have no order.
func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// eventsAnywhere: every node has the same events, and continues where another one stopped.
func eventsAnywhere(g *group) {
	t := g.t
	var last uint64
	for range 3 {
		last = g.submit(&api.JobRequest{Range: numbers(2), Program: item("true")})
		g.done(last)
	}
	all := g.nodes[0].factsUntil(last)
	wantFacts(t, all)
	if len(all) < 9 {
		t.Fatalf("%d events of 3 jobs: %+v", len(all), all)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	after, heard := "0-0", 0
	for heard < len(all) { // a few here, a few there
		some := 1 + heard%3
		if err := g.nodes[heard%len(g.nodes)].stream(ctx, after, func(f fact) bool {
			if want := all[heard]; f.id != want.id || f.kind != want.kind || !f.Time.Equal(want.Time) {
				t.Fatalf("event %d: %+v, want %+v", heard, f, want)
			}
			after = f.id
			heard++
			some--
			return some > 0 && heard < len(all)
		}); err != nil {
			t.Fatal(err)
		}
	}
	// Without a position the stream begins now.
	begun := make(chan fact, 100)
	listening, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		_ = g.nodes[1].stream(listening, "", func(f fact) bool { begun <- f; return true })
		close(begun)
	}()
	for first := true; first; {
		g.submit(&api.JobRequest{Name: "now", Range: numbers(1), Program: item("true")})
		timer := time.NewTimer(100 * time.Millisecond) // the stream may not have begun yet: then another job
		select {
		case f := <-begun:
			if first = false; f.Index <= all[len(all)-1].Index {
				t.Errorf("the first event is %+v, from before", f)
			}
		case <-timer.C:
		}
	}
	if a := g.nodes[2].request(http.MethodGet, "/v1/events", "", "Last-Event-ID", "yesterday"); a.code < 400 || a.code >= 500 {
		t.Errorf("a position that is none: %v", a)
	}
}

// consensus: the election in the original's API.
func consensus(g *group) {
	t := g.t
	type peer struct {
		ID           *int
		Schema, Host string
		Port         int
	}
	type raftState struct {
		OwnID              *int `json:"ownId"`
		Term               int
		OwnState           map[string]any
		VotedFor           *int
		LastElectionEpoch  *int64
		LastHeartbeatEpoch *int64
		CurrentLeader      *int
		Peers              []peer
	}
	terms, leaders, ids := map[int]bool{}, map[int]bool{}, map[int]bool{}
	agree := func() bool { // during an election they do not
		leads := g.leading()
		clear(terms)
		clear(leaders)
		clear(ids)
		for _, n := range g.nodes {
			s := decode[raftState](t, n.get("/raft/state"))
			if len(s.OwnState) != 1 || s.OwnID == nil || len(s.Peers) != 2 || s.LastHeartbeatEpoch == nil || s.LastElectionEpoch == nil {
				t.Fatalf("%v: raft state: %+v, want one state, and two peers", n, s)
			}
			for _, p := range s.Peers {
				if p.ID == nil || *p.ID == *s.OwnID || p.Schema != "http" || p.Host == "" || p.Port == 0 {
					t.Errorf("%v: peer %+v", n, p)
				}
			}
			role := "Follower"
			if n.listen == leads.listen {
				role = "Leader"
			}
			if _, ok := s.OwnState[role]; !ok || s.CurrentLeader == nil || role == "Leader" && *s.OwnID != *s.CurrentLeader {
				return false
			}
			terms[s.Term], leaders[*s.CurrentLeader], ids[*s.OwnID] = true, true, true
		}
		return len(terms) == 1 && len(leaders) == 1
	}
	until(t, "all name one leader, in one term", agree)
	if len(ids) != 3 {
		t.Errorf("own ids %v, want three", ids)
	}
}

// commandsAtFollower: the command line works with any node.
func commandsAtFollower(g *group) {
	t := g.t
	leads := g.leading()
	g.know(g.followers(leads)[0].address)
	code, stdout, stderr := g.cli("submit", "--wait", "--range", "1-2", "--", "echo")
	if code != 0 || stdout != "1\n2\n" && !strings.Contains(stdout, "\n") {
		t.Fatalf("submit: exit code %d: %s%s", code, stdout, stderr)
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"leaders"}, []string{g.nodes[0].address, g.nodes[1].address, g.nodes[2].address, api.LeaderLeads, api.LeaderFollows}},
		{[]string{"cluster"}, []string{"healthy", "1 alive"}},
		{[]string{"workers"}, []string{"alive"}},
		{[]string{"jobs"}, []string{"done"}},
	} {
		code, stdout, stderr := g.cli(test.args...)
		if code != 0 {
			t.Errorf("%q: exit code %d: %s", test.args, code, stderr)
		}
		wantText(t, stdout, test.want...)
	}
}

// TestOneAddress: a client that reaches one follower only, as from outside of a container network, has everything through it, also while the leader is killed.
func TestOneAddress(t *testing.T) {
	t.Parallel()
	g := newSpacedGroup(t, 3)
	g.workers(1)
	leads := g.leading()
	follows := g.followers(leads)[0]
	outside := spaceOf(g.hub, len(g.nodes))
	for _, n := range g.nodes {
		if n != follows {
			mustRun(t, "ip -n "+outside+" route add unreachable "+strings.TrimSuffix(n.address, ":6550"))
		}
	}
	run := func(stdin string, args ...string) string {
		t.Helper()
		cmd := inSpace(outside, g.lab.command(t.Context(), args...))
		cmd.Env = append(cmd.Env, "BRIDGEFOUR_CLUSTER=http://"+follows.address)
		cmd.Stdin = strings.NewReader(stdin)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v: %s%s", args, err, out, stderr.String())
		}
		return strings.TrimSpace(string(out))
	}
	number := func(text string) (id uint64) {
		t.Helper()
		if _, err := fmt.Sscan(text, &id); err != nil {
			t.Fatalf("%q is no number of a job", text)
		}
		return id
	}
	lines := strings.Repeat(strings.Repeat("x", 50_000)+"\n", 3) // sent after 100 Continue
	id := run(lines, "submit", "--quiet", "--lines", "-", "--", "sh", "-c", "echo ${#1}", "sh")
	run("", "wait", id)
	if got := run("", "result", id); got != "50000\n50000\n50000" {
		t.Errorf("result = %q, want the lengths of the lines", got)
	}
	id = run("", "submit", "--quiet", "--range", "1-1", "--", "sleep", "60")
	run("", "stop", id)
	g.current(number(id))
	if job := g.ends(number(id)); job.Status != api.JobStopped {
		t.Errorf("job %s is %s, want stopped", id, job.Status)
	}
	stop := make(chan struct{})
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		<-stop
		leads.kill()
	}()
	var ids []string
	for i := range 10 {
		if i == 3 {
			close(stop) // while the next ones are sent
		}
		ids = append(ids, run("", "submit", "--quiet", "--range", "1-1", "--", "echo"))
	}
	<-killed
	for _, id := range ids {
		run("", "wait", id)
		if got := run("", "result", id); got != "1" {
			t.Errorf("result of job %s = %q, want 1", id, got)
		}
	}
}

// TestInviteWorker invites a waiting worker at a follower, in the original's API.
func TestInviteWorker(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	file := g.path("idle.addr")
	idle := g.start("idle", "worker", "--data-dir", g.path("idle"), "--leader", "wait", "--slots", "1", "--address-file", file)
	host, port, err := net.SplitHostPort(idle.addressIn(file))
	if err != nil {
		t.Fatal(err)
	}
	a := requestAt(t.Context(), direct, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", "")
	if a.code != http.StatusServiceUnavailable {
		t.Errorf("an idle worker: readyz = %v, want 503", a)
	}
	id := g.submit(&api.JobRequest{Range: numbers(1), Program: item(printItem)})
	until(t, "the job is halted", func() bool { return g.job(id).Status == api.JobHalted })
	url := "http://" + g.followers(g.leading())[0].address + "/cluster/addWorker"
	a = requestAt(t.Context(), http.DefaultClient, http.MethodPost, url, fmt.Sprintf(`{"id":5,"schema":"http","host":%q,"port":%s}`, host, port))
	if a.code != http.StatusOK || !strings.Contains(a.body, `"status":{"type":"Alive"}`) {
		t.Errorf("addWorker = %v", a)
	}
	g.done(id)
	g.untilAlive(1)
	// It belongs to this cluster now, and joins it again after a restart.
	idle.kill()
	g.start("again", "worker", "--data-dir", g.path("idle"), "--leader", "wait", "--slots", "1")
	g.done(g.submit(&api.JobRequest{Range: numbers(1), Program: item(printItem)}))

	a = requestAt(t.Context(), http.DefaultClient, http.MethodPost, url, `{"schema":"http","host":"127.0.0.1","port":1}`)
	if a.code < 400 {
		t.Errorf("addWorker of an unused address without an id = %v", a)
	}
	wantText(t, a.body, "127.0.0.1:1")
	a = requestAt(t.Context(), http.DefaultClient, http.MethodPost, url, `{"id":6,"schema":"http","host":"127.0.0.1","port":1}`)
	if want := `{"id":6,"slots":[],"status":{"type":"Dead"}}`; a.code != http.StatusOK || strings.TrimSpace(a.body) != want {
		t.Errorf("addWorker of an unused address = %v, want %s", a, want)
	}
}
