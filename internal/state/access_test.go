package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// answers returns the rejections of an entry's commands; "" for one that was applied.
func answers(out Result) (list []string) {
	for _, e := range out.Events {
		if e.Kind != RequestApplied {
			continue
		}
		text := ""
		if e.Err != nil {
			text = e.Err.Error()
		}
		list = append(list, text)
	}
	return list
}

func TestAccessBounds(t *testing.T) {
	m := latest()
	m.time = 10 * machineKeptMS
	var tokens []*Token
	for i := range tokensMax {
		tokens = append(tokens, &Token{ID: fmt.Sprint(i), Expires: m.time})
	}
	var machines []*Enrolment
	for i := range machinesMax {
		machines = append(machines, &Enrolment{Fingerprint: fmt.Sprint(i), Renewed: m.time})
	}
	machines[7].Revoked, machines[8].Renewed, machines[9].Revoked = m.time-revokedKeptMS-1, m.time-machineKeptMS-1, m.time-revokedKeptMS
	m.access = &Access{
		tokens:   tableOf(tokens, func(t *Token) string { return t.ID }),
		machines: tableOf(machines, func(e *Enrolment) string { return e.Fingerprint }),
	}
	long := strings.Repeat("x", accessTextMax+1)
	e := NewEntry(m.time, FeatureLevel)
	e.PutToken("", &Token{ID: "new"})
	e.Enroll("", &Enrolment{Fingerprint: "new"})
	e.Enroll("", &Enrolment{Fingerprint: "new 2"})
	e.Enroll("", &Enrolment{Fingerprint: "new 3"})
	e.Enroll("", &Enrolment{Fingerprint: "1"})
	for _, token := range []Token{{}, {ID: long}, {ID: "a", User: long}, {ID: "a", Role: long}} {
		e.PutToken("", &token)
	}
	for _, machine := range []Enrolment{{}, {Fingerprint: long}, {Fingerprint: "a", Role: long}, {Fingerprint: "a", Name: long}} {
		e.Enroll("", &machine)
	}
	e.PutAuthority("", &Authority{Number: 1})
	e.PutAuthority("", &Authority{Number: 1, Certificate: []byte("c"), Cross: make([]byte, authorityMax)})
	want := []string{"10000 tokens", "", "", "100000 machines are enrolled", ""}
	want = append(want, strings.Split(strings.Repeat("at most 256 bytes;", 8)+"at most 32768 bytes;at most 32768 bytes", ";")...)
	got := answers(mustApply(t, m, e))
	if len(got) != len(want) {
		t.Fatalf("%d answers, want %d", len(got), len(want))
	}
	for i := range want {
		if (got[i] == "") != (want[i] == "") || !strings.Contains(got[i], want[i]) {
			t.Errorf("command %d: %q, want %q", i, got[i], want[i])
		}
	}
	if a := m.Access(); a.Enrolment("7") != nil || a.Enrolment("8") != nil || a.Enrolment("9") == nil || a.machines.size != machinesMax {
		t.Errorf("of %d machines, the revoked one is %+v, and the idle one %+v; want new ones in their places", a.machines.size, a.Enrolment("7"), a.Enrolment("8"))
	}
	e = NewEntry(m.time+tokenKeptMS+1, FeatureLevel)
	e.PutToken("", &Token{ID: "new"})
	if got := answers(mustApply(t, m, e)); got[0] != "" || m.Access().tokens.size != 1 {
		t.Errorf("a token after all have expired: %q, and %d tokens", got[0], m.Access().tokens.size)
	}
}

// TestReseal: the secrets of a job are replaced by the same ones only, and who reads its spec meanwhile sees no change.
func TestReseal(t *testing.T) {
	m := latest()
	e := NewEntry(1, FeatureLevel)
	e.Submit("", "uid", "", &Spec{Output: "/o", Secrets: []Secret{{Name: "A", Sealed: []byte("old")}, {Name: "B", Sealed: []byte("old")}}})
	mustApply(t, m, e)
	before := m.Job(1).Spec
	e = NewEntry(2, FeatureLevel)
	e.Reseal("", 1, []Secret{{Name: "A", Sealed: []byte("new")}, {Name: "B", Sealed: []byte("new")}})
	e.Reseal("", 1, []Secret{{Name: "A", Sealed: []byte("other")}})
	e.Reseal("", 1, []Secret{{Name: "A", Sealed: []byte("other")}, {Name: "C", Sealed: []byte("other")}})
	e.Reseal("", 2, nil)
	want := []string{"", "job 1 has other secrets", "job 1 has other secrets", "there is no job 2"}
	if got := answers(mustApply(t, m, e)); !slices.Equal(got, want) {
		t.Errorf("answers %q, want %q", got, want)
	}
	if got := m.Job(1).Spec.Secrets; string(got[0].Sealed) != "new" || string(got[1].Sealed) != "new" || string(before.Secrets[0].Sealed) != "old" {
		t.Errorf("secrets %q, and %q in the spec of before", got, before.Secrets)
	}
}
