package state

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// raised returns an empty machine at every feature level that there is.
func raised() []*Machine {
	machines := []*Machine{New()}
	for level := uint32(1); level <= FeatureLevel; level++ {
		m := New()
		m.level = level
		machines = append(machines, m)
	}
	return machines
}

func TestRaiseLevel(t *testing.T) {
	m, spec := New(), &Spec{User: "local", Output: "/o", Argv: [][]byte{{}, []byte("true")}}
	e := NewEntry(1, m.Level())
	e.Submit("key", "uid", "ann", spec)
	mustApply(t, m, e)

	mustApply(t, m, RaiseLevel(2, 1, "v0.3.0"))
	mustApply(t, m, RaiseLevel(3, 1, "v0.4.0"))
	if m.Level() != 1 || m.Needs() != "v0.3.0" {
		t.Fatalf("the level is %d and needs %q, want 1 and v0.3.0", m.Level(), m.Needs())
	}
	restored, err := Restore(bytes.NewReader(snapshotBytes(t, m.Snapshot())))
	if err != nil || restored.Level() != 1 || restored.Needs() != "v0.3.0" {
		t.Fatalf("a restored machine is at level %d and needs %q, %v", restored.Level(), restored.Needs(), err)
	}
	for _, m := range []*Machine{m, restored} {
		e = NewEntry(4, m.Level())
		e.Submit("key", "other uid", "ann", spec)
		if out := mustApply(t, m, e); out.Events[0].Job != 1 || out.Events[0].Err != nil {
			t.Errorf("a key of level 0 used again at level 1 gives %+v, want job 1", out.Events[0])
		}
		e = NewEntry(5, m.Level())
		e.Submit("key", "third uid", "bob", spec)
		e.Submit("", "fourth uid", "ann", &Spec{User: "local", Output: "/other"})
		if out := mustApply(t, m, e); out.Events[0].Err == nil || m.Job(1).Spec.User != "ann" || m.Job(2).Spec.User != "local" {
			t.Errorf("another user's request with the key gives %+v; the jobs' users are %q and %q", out.Events[0], m.Job(1).Spec.User, m.Job(2).Spec.User)
		}
	}
}

// TestVersionsFollowTheLevel: at level 0 all that is written can be read by programs of before.
func TestVersionsFollowTheLevel(t *testing.T) {
	for _, m := range raised() {
		want := byte(min(m.Level(), 1) + 1)
		if got := snapshotBytes(t, m.Snapshot())[0]; got != want {
			t.Errorf("at level %d snapshots are of version %d, want %d", m.Level(), got, want)
		}
		if got := NewEntry(1, m.Level()).Data()[0]; got != want {
			t.Errorf("at level %d entries are of version %d, want %d", m.Level(), got, want)
		}
	}
}

// TestNewer: what only a newer program can read is refused with the version to install.
func TestNewer(t *testing.T) {
	entry := func(fill func(e *encoder)) []byte {
		e := NewEntry(1, 1)
		fill(&e.enc)
		return e.Data()
	}
	of := func(version string) *Machine {
		m := New()
		m.level, m.needs = 1, version
		return m
	}
	newer := of("v9.0.0")
	newer.level = FeatureLevel + 1
	for name, test := range map[string]struct {
		entry, snapshot []byte
		what            string
	}{
		"version":  {entry: []byte{entryV2 + 1, 2}, what: "version 3"},
		"command":  {entry: entry(func(e *encoder) { e.bytesItem(77, nil) }), what: "unknown command 77"},
		"field":    {entry: entry(func(e *encoder) { e.nest(cmdStop, func() { e.uintField(99, 1) }) }), what: "unknown field 99 of a command"},
		"level":    {entry: RaiseLevel(1, FeatureLevel+1, "v9.0.0").Data(), what: fmt.Sprintf("feature level %d", FeatureLevel+1)},
		"snapshot": {snapshot: snapshotBytes(t, newer.Snapshot()), what: fmt.Sprintf("feature level %d", FeatureLevel+1)},
		"nested field": {
			entry: entry(func(e *encoder) {
				e.nest(cmdSubmit, func() { e.nest(3, func() { e.nest(5, func() { e.stringField(42, "x") }) }) })
			}), what: "unknown field 42 of a job's input",
		},
	} {
		var err error
		if test.snapshot != nil {
			_, err = Restore(bytes.NewReader(test.snapshot))
		} else {
			err = of("v9.0.0").Apply(7, test.entry, &Result{})
		}
		want := test.what + ": " + ErrVersion.Error() + ": install v9.0.0 or newer on this node and start it again"
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestDamagedRecords: a value of another type than its field's, fields that are out of order, and what a command lacks.
func TestDamagedRecords(t *testing.T) {
	for name, fill := range map[string]func(e *encoder){
		"a string where a number is due": func(e *encoder) { e.nest(cmdStop, func() { e.stringField(5, "12") }) },
		"a number where a string is due": func(e *encoder) { e.nest(cmdStop, func() { e.uintField(1, 5) }) },
		"fields out of order":            func(e *encoder) { e.nest(cmdStop, func() { e.uintField(5, 1); e.stringField(1, "key") }) },
		"a field that ends too early":    func(e *encoder) { e.nest(cmdStop, func() { e.buf = append(e.buf, 1<<3|2, 200) }) },
		"a command that is a number":     func(e *encoder) { e.uintField(cmdStop, 5) },
		"a submit without a spec":        func(e *encoder) { e.nest(cmdSubmit, func() {}) },
		"a worker without its record":    func(e *encoder) { e.nest(cmdRegister, func() {}) },
		"a failure without a failure":    func(e *encoder) { e.nest(cmdFailed, func() { e.uintField(5, 1) }) },
		"a failure of no kind":           func(e *encoder) { e.nest(cmdFailed, func() { e.nest(12, func() { e.uintField(1, 99) }) }) },
		"completions and more":           func(e *encoder) { e.nest(cmdDone, func() { e.bytesItem(13, []byte{0, 7}) }) },
	} {
		m, e := latest(), NewEntry(1, FeatureLevel)
		fill(&e.enc)
		if err := m.Apply(1, e.Data(), &Result{}); !errors.Is(err, errShort) {
			t.Errorf("%s: %v, want %v", name, err, errShort)
		}
	}
	e := NewEntry(1, 1)
	e.Stop("", 1)
	if err := New().Apply(1, e.Data(), &Result{}); !errors.Is(err, errShort) {
		t.Errorf("an entry of level 1 at level 0: %v, want %v", err, errShort)
	}
}

// nest, bytesItem, uintField and stringField write fields that no record has, or that are damaged.
func (e *encoder) nest(n int, fill func()) {
	e.tag(n, protowire.BytesType)
	e.sized(fill)
}

func (e *encoder) bytesItem(n int, b []byte) {
	e.tag(n, protowire.BytesType)
	e.bytes(b)
}

func (e *encoder) uintField(n int, v uint64) {
	e.tag(n, protowire.VarintType)
	e.uint(v)
}

func (e *encoder) stringField(n int, s string) { e.bytesItem(n, []byte(s)) }

// TestSpecLevel sets each field of a spec that level 1 cannot write.
func TestSpecLevel(t *testing.T) {
	for _, spec := range []*Spec{
		{GraceMS: 1}, {Records: "csv"}, {Header: 1}, {Env: map[string]string{"A": "1"}}, {Secrets: []Secret{{Name: "A", Sealed: []byte("x")}}}, {Sandbox: true}, {NoNetwork: true},
	} {
		spec.Output = "/o"
		m := New()
		m.level = spec.Level()
		e := NewEntry(1, m.Level())
		e.Submit("", "uid", "", spec)
		mustApply(t, m, e)
		want := *spec
		want.Stages = DefaultPlan(0, false, true)
		if got := m.Job(1).Spec; !reflect.DeepEqual(got, &want) {
			t.Errorf("at its level %d, the spec %+v is written as %+v", spec.Level(), spec, got)
		}
	}
}
