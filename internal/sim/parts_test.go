package sim

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Tests of the simulator's parts whose errors a world would not notice.

func TestAgendaKeepsOrder(t *testing.T) {
	var a agenda
	rng := rand.New(rand.NewPCG(1, 1))
	type entry struct {
		at time.Duration
		n  int
	}
	var want, got []entry
	for n := range 1000 {
		e := entry{time.Duration(rng.IntN(50)), n}
		want = append(want, e)
		a.add(e.at, func() { got = append(got, e) })
	}
	slices.SortStableFunc(want, func(a, b entry) int { return int(a.at - b.at) })
	for e, ok := a.next(40); ok; e, ok = a.next(40) {
		e.do()
	}
	if rest := len(a.heap); len(got)+rest != 1000 || got[len(got)-1].at != 40 {
		t.Errorf("%d events until 40, the last at %d, %d after", len(got), got[len(got)-1].at, rest)
	}
	if !slices.Equal(got, want[:len(got)]) {
		t.Error("events come in another order than by time, and then as they were entered")
	}
}

// two returns a network of two running processes.
func two() (*World, *process, *process) {
	w := newWorld(Config{Seed: 1}, nil)
	a, b := &process{w: w, addr: 1}, &process{w: w, addr: 2}
	a.start()
	b.start()
	return w, a, b
}

func TestConnKeepsOrderAcrossACut(t *testing.T) {
	w, a, b := two()
	var got []int
	here := w.net.dial(a, b, func(there *end) { there.recv = func(m any) { got = append(got, m.(int)) } }, func() { t.Error("not connected") })
	here.recv, here.broken = func(any) {}, func() { t.Error("the connection broke") }
	w.run(time.Second)
	for i := range 100 {
		w.after(time.Duration(i)*10*time.Millisecond, func() { here.send(i) })
	}
	w.after(300*time.Millisecond, func() { w.cut(500*time.Millisecond, &cut{is(1), is(2), true}) })
	w.run(10 * time.Second)
	if len(got) != 100 || !slices.IsSorted(got) {
		t.Errorf("got %v, want 0 to 99", got)
	}
}

func TestConnBreaks(t *testing.T) {
	tests := map[string]func(w *World, b *process, here, there *end){
		"when nothing gets through": func(w *World, _ *process, here, _ *end) {
			w.cut(time.Minute, &cut{is(1), is(2), false})
			here.send(1)
		},
		"when the other side closes":            func(_ *World, _ *process, _, there *end) { there.close() },
		"when the other side's machine is gone": func(_ *World, b *process, _, there *end) { there.lose(); b.die(true) },
	}
	for name, inject := range tests {
		t.Run(name, func(t *testing.T) {
			w, a, b := two()
			var there *end
			broken := 0
			here := w.net.dial(a, b, func(e *end) {
				there = e
				e.recv, e.broken = func(any) {}, func() {}
			}, func() {})
			here.recv, here.broken = func(any) {}, func() { broken++ }
			w.run(time.Second)
			inject(w, b, here, there)
			w.run(20 * time.Second)
			if broken != 1 {
				t.Errorf("told %d times that the connection is broken, want once", broken)
			}
		})
	}
}

func TestPausedProcess(t *testing.T) {
	w, a, _ := two()
	var got []string
	a.pause()
	a.exec(func() { got = append(got, "first") })
	w.after(time.Second, func() { a.exec(func() { got = append(got, "second") }) })
	w.run(2 * time.Second)
	if len(got) != 0 {
		t.Errorf("a stopped process did %v", got)
	}
	a.resume()
	if !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("it then did %v", got)
	}
	a.after(time.Second, func() { t.Error("a dead process acts") })
	a.die(false)
	a.start()
	w.run(5 * time.Second)
}

func TestDiskLosesUnsyncedWrites(t *testing.T) {
	for seed := range uint64(50) {
		w, a, _ := two()
		d := &disk{w: w, proc: a, rng: stream(seed, "disk", 0)}
		var durable, told []int
		for i := range 10 {
			w.after(time.Duration(i)*500*time.Microsecond, func() {
				d.save(write{apply: func() { durable = append(durable, i) }, done: func(error) { told = append(told, i) }})
			})
		}
		w.run(3 * time.Millisecond)
		a.die(true)
		d.stop()
		w.run(time.Second)
		if !slices.IsSorted(durable) || len(durable) < len(told) || !slices.Equal(durable[:len(told)], told) {
			t.Fatalf("seed %d: %v durable, %v acknowledged", seed, durable, told)
		}
	}
}

// Histories that no sequential job explains are found, and similar ones that one explains are not.
func TestHistoryFindsViolations(t *testing.T) {
	type op struct {
		call, end time.Duration
		in        opKind
		out       answer
	}
	submit := op{0, 1, opSubmit, answer{job: 1}}
	tests := []struct {
		name string
		ops  []op
		want bool // linearizable
	}{
		{"a job that is submitted is there", []op{submit, {2, 3, opRead, answer{missing: true}}}, false},
		{"not before that", []op{submit, {0, 2, opRead, answer{missing: true}}}, true},
		{"a stopped job does not run", []op{submit, {2, 3, opStop, answer{}}, {4, 5, opRead, answer{status: state.JobActive}}}, false},
		{"unless the stop is not acknowledged", []op{submit, {2, 9, opStop, answer{unknown: true}}, {4, 5, opRead, answer{status: state.JobActive}}}, true},
		{"tasks that are done stay so", []op{submit, {2, 3, opRead, answer{done: 5}}, {4, 5, opRead, answer{done: 4}}}, false},
		{"unless the job starts again", []op{
			submit, {2, 3, opRead, answer{done: 5}}, {4, 5, opStop, answer{}}, {6, 7, opRetry, answer{}}, {8, 9, opRead, answer{done: 4}},
		}, true},
		{"a job that is done stays so", []op{submit, {2, 3, opRead, answer{status: state.JobDone}}, {4, 5, opRead, answer{status: state.JobFailed}}}, false},
		{"a job that runs is not retried", []op{submit, {2, 3, opRetry, answer{}}, {4, 5, opRead, answer{status: state.JobActive}}}, true}, // it may have failed
		{"a job that is done is not retried", []op{submit, {2, 3, opRead, answer{status: state.JobDone}}, {4, 5, opRetry, answer{}}}, false},
		{"one key is one job", []op{submit, {2, 3, opSubmit, answer{job: 2}}}, false},
	}
	for _, tt := range tests {
		var h history
		for i, o := range tt.ops {
			n := h.call(i, o.call, request{o.in, "key"})
			if !o.out.unknown {
				h.answered(n, o.end, o.out)
			}
		}
		if err := h.check(time.Minute); (err == nil) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestShrinkIsMinimal(t *testing.T) {
	var faults []Fault
	for i := range 200 {
		faults = append(faults, Fault{Size: i})
	}
	tries := 0
	least := Shrink(faults, 1000, func(list []Fault) bool {
		tries++
		has := func(n int) bool { return slices.ContainsFunc(list, func(f Fault) bool { return f.Size == n }) }
		return has(17) && has(133) && has(199)
	})
	if len(least) != 3 || least[0].Size != 17 || least[2].Size != 199 {
		t.Errorf("Shrink gives %v after %d tries", least, tries)
	}
}

// The list of faults that is printed with a failure is short, and fails.
func TestShrinkWorld(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		c := faulty(OfLeaders()...)(seed)
		c.Leaders, c.Workers, c.Jobs, c.Span, c.Plant = 3, 2, 4, 10*time.Second, AckUnsynced // small worlds are as good
		faults := c.Faults()
		if len(faults) < 20 || Run(c, faults, nil).Err == nil {
			continue
		}
		fails := func(f []Fault) bool { return Run(c, f, nil).Err != nil }
		least := Shrink(faults, 50, fails)
		if len(least) > len(faults)/4 || !fails(least) {
			t.Errorf("seed %d: %d faults of %d are left: %v", seed, len(least), len(faults), least)
		}
		return
	}
	t.Error("no seed finds that disks lie")
}

func TestVerbosePrintsFaults(t *testing.T) {
	c := Draw(1)
	var text bytes.Buffer
	r := Run(c, c.Faults(), &text)
	if quiet := Run(c, c.Faults(), nil); quiet != r {
		t.Errorf("a verbose world gives %+v, and otherwise %+v", r, quiet)
	}
	if n := strings.Count(text.String(), " fault "); n != r.Faults {
		t.Errorf("%d faults are printed of %d", n, r.Faults)
	}
}
