package leader

import (
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
)

func TestCompareRunTimes(t *testing.T) {
	const self = 9
	tests := []struct {
		name        string
		others      []runTime // of other workers
		r           runTime
		slow, known bool
	}{
		{"too few", []runTime{{1, 1000, 0}, {2, 1000, 0}, {self, 1000, 0}}, runTime{self, 60_000, 0}, true, false},
		{"ten times", []runTime{{1, 1000, 0}, {2, 1100, 0}, {2, 900, 0}}, runTime{self, 10_000, 0}, true, true},
		{"half as fast", []runTime{{1, 1000, 0}, {2, 1100, 0}, {2, 900, 0}}, runTime{self, 2200, 0}, false, true},
		{"as slow as most", []runTime{{1, 9000, 0}, {2, 1000, 0}, {2, 8000, 0}, {3, 9000, 0}}, runTime{self, 10_000, 0}, false, true},
		{"short tasks", []runTime{{1, 100, 0}, {2, 150, 0}, {2, 199, 0}}, runTime{self, 10_000, 0}, true, false},
		{"longer input", []runTime{{1, 1000, 100}, {2, 1000, 100}, {3, 1000, 100}}, runTime{self, 10_000, 1000}, false, true},
		{"shorter input", []runTime{{1, 1000, 1000}, {2, 1000, 1000}, {3, 1000, 1000}}, runTime{self, 5000, 10}, true, true},
	}
	for _, tt := range tests {
		var times runTimes
		for _, r := range tt.others {
			times.add(r)
		}
		if slow, known := times.compare(tt.r); known != tt.known || known && slow != tt.slow {
			t.Errorf("%s: compare() = %v, %v, want %v, %v", tt.name, slow, known, tt.slow, tt.known)
		}
	}
	var times runTimes
	for i := range 3 * timesKept {
		times.add(runTime{1, uint64(i), 0})
	}
	if len(times.list) != timesKept {
		t.Errorf("%d run times are kept, want %d", len(times.list), timesKept)
	}
	for _, r := range times.list {
		if r.millis < 2*timesKept {
			t.Errorf("run time %d is kept: want the latest", r.millis)
		}
	}
}

func TestSpeeds(t *testing.T) {
	type run struct {
		stage uint32
		slow  bool
		n     int
	}
	tests := []struct {
		name string
		runs []run
		want bool
	}{
		{"one stage", []run{{0, true, 100}}, false},
		{"two stages, few tasks", []run{{0, true, 4}, {1, true, 3}}, false},
		{"two stages", []run{{0, true, 4}, {1, true, 4}}, true},
		{"one stage is not slow", []run{{0, true, 20}, {1, false, 1}, {0, true, 20}}, false},
		{"one of four is not slow", []run{{0, true, 2}, {1, false, 1}, {2, true, 2}, {3, true, 3}}, true},
		{"has become slow", []run{{0, false, 100}, {1, true, 4}, {0, true, 20}}, true},
		{"stages of long ago", []run{{0, false, 1}, {1, false, 1}, {2, false, 1}, {3, true, 1}, {4, true, 1}, {5, true, 1}, {6, true, 1}, {7, true, 1}, {8, true, 1}, {9, true, 1}, {10, true, 1}}, true},
	}
	for _, tt := range tests {
		var s speeds
		got := false
		for _, r := range tt.runs {
			for range r.n {
				got = s.add(sched.Key{Job: 1, Stage: r.stage}, r.slow)
			}
		}
		if got != tt.want || len(s.stages) > stagesKept {
			t.Errorf("%s: slow %v with evidence of %d stages, want %v and at most %d", tt.name, got, len(s.stages), tt.want, stagesKept)
		}
	}
}

func TestTriedTime(t *testing.T) {
	for n, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 6: 16 * time.Minute, 1 << 40: 16 * time.Minute} {
		if got := triedTime(n); got != want {
			t.Errorf("triedTime(%d) = %v, want %v", n, got, want)
		}
	}
}

// The cluster does without a slow worker unless it has more slots than the others, or is the only one that fits a job.
func TestNeededWorkers(t *testing.T) {
	r := newCoreRig(t, 3)
	workers := r.core.registry.inOrder
	w := workers[2]
	if r.core.needed(w) {
		t.Error("a third of the slots is needed")
	}
	workers[1].quarantine.cause = Slow
	if !r.core.needed(w) {
		t.Error("two thirds of the slots are not needed")
	}
	workers[1].quarantine.cause = NotQuarantined
	for _, other := range workers[:2] {
		other.heard = other.heard.Add(-time.Minute)
	}
	if !r.core.needed(w) {
		t.Error("a worker is not needed when the others are about to be lost")
	}
	for _, other := range workers[:2] {
		other.heard = r.now
	}
	w.Memory = 100
	for _, other := range workers[:2] {
		other.Memory = 10
	}
	spec := &state.Spec{Output: "/out", Spool: true, Memory: 50}
	spec.Input, _ = state.RangeInput(1, 1)
	r.step(Command{"k", func(e *state.Entry) { e.Submit("", "uid", "", spec) }})
	r.step()
	if !r.core.needed(w) {
		t.Error("the only worker that fits a job is not needed")
	}
}
