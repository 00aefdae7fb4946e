package leader

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// newHelloRig is a core of cluster "blue", id c2, which was c1 before it was recovered.
func newHelloRig(t *testing.T) *coreRig {
	t.Helper()
	r := &coreRig{t: t, now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), machine: state.New()}
	r.log = &testLog{machine: r.machine, term: 7, latency: func() time.Duration { return 0 }}
	r.core = NewCore(CoreConfig{
		Machine: r.machine, Cluster: "blue", Members: Members{ClusterID: "c2", Former: []string{"c0", "c1"}, Addresses: []string{"a:1", "b:2"}},
		Term: 7, Now: r.now, Seed: 1,
	})
	return r
}

// sent is what the last step has sent to a session.
func (r *coreRig) sent(id SessionID) (list []*wire.ToWorker) {
	for _, m := range r.last.Send {
		if m.Session == id {
			list = append(list, m.Message)
		}
	}
	return list
}

// A worker that does not fit is refused for good, with the values of both sides and the way out; all others are registered.
func TestHelloIsChecked(t *testing.T) {
	at := func(d time.Duration) int64 { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).Add(d).UnixMilli() }
	for name, test := range map[string]struct {
		change func(h *wire.Hello)
		want   []string // parts of the reason; none: it is registered
	}{
		"no cluster":                      {func(*wire.Hello) {}, nil},
		"this cluster":                    {func(h *wire.Hello) { h.ClusterId, h.ClusterName = "c2", "blue" }, nil},
		"the cluster before its recovery": {func(h *wire.Hello) { h.ClusterId = "c1" }, nil},
		"another cluster": {
			func(h *wire.Hello) { h.ClusterId, h.ClusterName = "c9", "blue" }, []string{"cluster c9", "cluster c2", `"blue"`, "--data-dir"},
		},
		"another name": {func(h *wire.Hello) { h.ClusterName = "green" }, []string{`"green"`, `"blue"`, "--cluster-name blue"}},
		"a newer version that supports our protocol": {
			func(h *wire.Hello) { h.Protocol, h.ProtocolMin = wire.Protocol+3, wire.Protocol }, nil,
		},
		"a version that is too new": {
			func(h *wire.Hello) { h.Version, h.Protocol, h.ProtocolMin = "v9", wire.Protocol+3, wire.Protocol+1 },
			[]string{`version "v9"`, fmt.Sprintf("protocol %d at least", wire.Protocol+1), fmt.Sprintf("%d at most", wire.Protocol), "upgrade the leaders"},
		},
		"a slow clock": {func(h *wire.Hello) { h.UnixMs = at(time.Second - clockMax) }, nil},
		"a fast clock": {func(h *wire.Hello) { h.UnixMs = at(clockMax) }, nil},
		"a wrong clock": {
			func(h *wire.Hello) { h.UnixMs = at(-clockMax - time.Second) }, []string{"2030-01-02T02:59:04Z", "2030-01-02T03:04:05Z", "5m0s"},
		},
		"a clock a day ahead":      {func(h *wire.Hello) { h.UnixMs = at(24 * time.Hour) }, []string{"2030-01-03T03:04:05Z"}},
		"a clock before the epoch": {func(h *wire.Hello) { h.UnixMs = -1 << 63 }, []string{"clock"}},
		"no identity":              {func(h *wire.Hello) { h.Identity = "" }, []string{`""`, "identity in its data directory"}},
		"no incarnation":           {func(h *wire.Hello) { h.Incarnation = "" }, []string{`""`}},
		"an identity of two lines": {
			func(h *wire.Hello) { h.Identity = "a\nb" }, []string{`"a\nb"`},
		},
		"a long identity": {func(h *wire.Hello) { h.Identity = strings.Repeat("x", 1<<20) }, []string{`xxx"`, "1 to 128"}},
		"long labels": {
			func(h *wire.Hello) { h.Labels = map[string]string{"k": strings.Repeat("x", helloBytesMax)} }, []string{"65537 bytes", "65536", "--label"},
		},
		"a long host name":           {func(h *wire.Hello) { h.Host = strings.Repeat("x", 257) }, []string{"host has 257 bytes", "256"}},
		"a version that writes":      {func(h *wire.Hello) { h.Version = "v1\x1b[2J" }, []string{"version has control characters"}},
		"a confinement of two lines": {func(h *wire.Hello) { h.Confinement = []string{"a\nb"} }, []string{"confinement has control characters"}},
		"a label of two lines":       {func(h *wire.Hello) { h.Labels = map[string]string{"k": "a\nb"} }, []string{"a label has control characters"}},
		"too many labels": {
			func(h *wire.Hello) {
				h.Labels = map[string]string{}
				for i := range labelsMax + 1 {
					h.Labels[fmt.Sprint(i)] = ""
				}
			}, []string{"257 labels", "256", "--label"},
		},
		"a resource with another name": {func(h *wire.Hello) { h.Resources = map[string]uint32{"G PU": 1} }, []string{`invalid name of a resource "G PU"`, "--resource"}},
		"memory as a resource":         {func(h *wire.Hello) { h.Resources = map[string]uint32{"memory": 1} }, []string{"use --memory"}},
		"too many of a resource":       {func(h *wire.Hello) { h.Resources = map[string]uint32{"gpu": 1 << 21} }, []string{"2097152 of gpu", "1048576"}},
		"too much memory":              {func(h *wire.Hello) { h.Memory = 1 << 63 }, []string{"9223372036854775808 bytes", "--memory"}},
		"too many leases": {
			func(h *wire.Hello) { h.Held = make([]*wire.Held, wire.HeldMax(1)+1) }, []string{"1056769 leases", "1056768 for 1 slots"},
		},
		"no slots":       {func(h *wire.Hello) { h.Slots = 0 }, []string{"0 slots", "1 to 4096", "--slots"}},
		"too many slots": {func(h *wire.Hello) { h.Slots = 1 << 20 }, []string{"1048576 slots"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newHelloRig(t)
			h := &wire.Hello{Identity: "w", Incarnation: "i", Slots: 1}
			test.change(h)
			r.step(Hello{1, h})
			if len(test.want) == 0 {
				r.step()
				if len(r.sent(1)) != 1 || r.sent(1)[0].GetWelcome() == nil {
					t.Fatalf("answers %v, closes %+v; want a welcome", r.last.Send, r.last.Close)
				}
				return
			}
			if len(r.last.Close) != 1 || !r.last.Close[0].Refused {
				t.Fatalf("closes %+v; want it refused for good", r.last.Close)
			}
			reason := r.last.Close[0].Reason
			for _, want := range test.want {
				if !strings.Contains(reason, want) {
					t.Errorf("reason %q, want it to contain %q", reason, want)
				}
			}
			if len(reason) > 1000 {
				t.Errorf("the reason has %d bytes", len(reason))
			}
			if r.step(); len(r.machine.Workers()) != 0 {
				t.Error("the worker was registered")
			}
		})
	}
}

// If a worker and a leader have no protocol in common, the older one must be upgraded.
func TestProtocols(t *testing.T) {
	for _, test := range []struct {
		speaks, least, ours, oursLeast uint32
		want                           string
	}{
		{0, 0, 1, 1, ""},
		{1, 1, 2, 1, ""},
		{2, 1, 1, 1, ""},
		{3, 2, 2, 1, ""},
		{0, 0, 3, 2, "supports protocol 1 at most, and this leader 2 at least: upgrade the worker"},
		{2, 1, 4, 3, "upgrade the worker"},
		{3, 2, 1, 1, "supports protocol 2 at least, and this leader 1 at most: upgrade the leaders"},
	} {
		got := protocolMismatch(&wire.Hello{Protocol: test.speaks, ProtocolMin: test.least}, test.oursLeast, test.ours)
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("worker %d to %d, leader %d to %d: %q, want %q", test.least, test.speaks, test.oursLeast, test.ours, got, test.want)
		}
	}
}

// The welcome has what a worker needs to find another leader; changes of the leaders follow.
func TestWorkersAreToldTheLeaders(t *testing.T) {
	r := newHelloRig(t)
	for id := range SessionID(2) {
		r.step(Hello{id + 1, &wire.Hello{Identity: fmt.Sprint(id), Incarnation: "i", Slots: 1}})
		r.step()
		w := r.sent(id + 1)[0].GetWelcome()
		if w.GetClusterId() != "c2" || w.GetCluster() != "blue" || !slices.Equal(w.GetLeaders(), []string{"a:1", "b:2"}) || w.GetSilenceMs() != 1000 || w.GetTerm() != 7 {
			t.Fatalf("the welcome is %v", w)
		}
	}
	r.step(Closed{2})
	r.step(Members{ClusterID: "c2", Addresses: []string{"a:1", "b:2"}})
	if len(r.last.Send) != 0 {
		t.Errorf("nothing has changed; sent %v", r.last.Send)
	}
	r.step(Members{ClusterID: "c2", Addresses: []string{"b:2", "c:3"}})
	if len(r.last.Send) != 1 || !slices.Equal(r.sent(1)[0].GetLeaders().GetAddresses(), []string{"b:2", "c:3"}) {
		t.Errorf("sent %v, want the leaders to the connected worker", r.last.Send)
	}
}

// No worker waits longer than a heartbeat for a message, and none is pinged that was just sent one.
func TestPing(t *testing.T) {
	r := newCoreRig(t, 2)
	for _, test := range []struct {
		every int // steps of 200 µs between messages; 0: none
		pings bool
	}{{0, true}, {4000, false}, {6000, true}} {
		last := map[SessionID]time.Time{}
		pings := 0
		start := r.now
		for i := range 30_000 {
			if i%1000 == 0 {
				r.beat()
			}
			var inputs []Input
			if test.every > 0 && i%test.every == 0 {
				inputs = append(inputs, FetchLog{&wire.LogRequest{}})
			}
			r.step(inputs...)
			for _, m := range r.last.Send {
				if at, ok := last[m.Session]; ok && r.now.Sub(at) > idleHeartbeat {
					t.Fatalf("nothing was sent to worker %d for %v", m.Session, r.now.Sub(at))
				}
				last[m.Session] = r.now
				if m.Message.GetPing() != nil {
					pings++
				}
			}
		}
		took := r.now.Sub(start)
		if most := 2 * int(took/(idleHeartbeat-tick)); pings > most || (pings > 0) != test.pings {
			t.Errorf("%d pings to two workers in %v, with other messages each %d steps; want at most %d, and some: %v", pings, took, test.every, most, test.pings)
		}
	}
	r.step(Closed{1})
	for range 6000 {
		if r.step(); len(r.sent(1)) > 0 {
			t.Fatal("a session that has ended is pinged")
		}
	}
}

func TestPingBusyWorker(t *testing.T) {
	r := newCoreRig(t, 1)
	r.workers = nil // it only sends heartbeats: its attempt runs
	r.submit(1, 1)
	for range 5 {
		r.step()
	}
	if len(r.core.registry.workers[1].leases) != 1 {
		t.Fatal("no lease was given")
	}
	last := r.now
	for range 100 {
		r.now = r.now.Add(tick / 2)
		if r.step(Report{1, &wire.Report{Heartbeat: true}}); len(r.sent(1)) > 0 {
			last = r.now
		}
		if r.now.Sub(last) > heartbeat {
			t.Fatalf("nothing was sent to a busy worker for %v", r.now.Sub(last))
		}
	}
}

// A worker is pinged at once while a slow log has its registration: otherwise it looks for another leader.
func TestHelloIsAnsweredAtOnce(t *testing.T) {
	r := newHelloRig(t)
	r.log.held = true
	r.step(Hello{1, &wire.Hello{Identity: "w", Incarnation: "x", Slots: 1}})
	if m := r.sent(1); len(m) != 1 || m[0].GetPing() == nil {
		t.Errorf("before the log has the registration, the worker is sent %v, want a ping", m)
	}
	r.step(Hello{2, &wire.Hello{Identity: "v", Incarnation: "x", Slots: 1, ClusterName: "green"}})
	if m := r.sent(2); len(m) != 0 {
		t.Errorf("a worker that is refused is sent %v", m)
	}
}

// A worker of protocol 1 would cut every file at line ends, and ignore an environment: it gets no leases of a job with other records, a header or an environment.
func TestOldWorkers(t *testing.T) {
	for name, spec := range map[string]*state.Spec{"records": {Records: "csv"}, "header": {Header: 1}, "environment": {Env: map[string]string{"A": "1"}}, "lines": {}} {
		r := &coreRig{t: t, now: time.UnixMilli(1), machine: state.New()}
		if err := r.machine.Apply(1, state.RaiseLevel(0, state.FeatureLevel, "test").Data(), &state.Result{}); err != nil {
			t.Fatal(err)
		}
		r.log = &testLog{machine: r.machine, term: 1, index: 1, latency: func() time.Duration { return 0 }}
		r.core = NewCore(CoreConfig{Machine: r.machine, Term: 1, Now: r.now, Seed: 1})
		spec.Output, spec.Spool = "/x", true
		spec.Input, _ = state.RangeInput(1, 3)
		done := func(protocol uint32) int {
			w := &busyWorker{session: SessionID(len(r.workers) + 1)}
			r.workers = append(r.workers, w)
			r.step(Hello{w.session, &wire.Hello{Identity: fmt.Sprint(protocol), Incarnation: "x", Slots: 1, Protocol: protocol, ProtocolMin: 1}})
			for range 10 {
				r.step()
			}
			return w.done
		}
		r.step(Command{"", func(e *state.Entry) { e.Submit("", "uid", "", spec) }})
		old := done(1)
		if wanted := name == "lines"; (old > 0) != wanted {
			t.Errorf("%s: an old worker has run %d tasks, want some: %v", name, old, wanted)
		}
		if n := old + done(wire.Protocol); n < 3 {
			t.Errorf("%s: %d tasks were run, want 3", name, n)
		}
	}
}
