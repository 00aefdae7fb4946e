package peer

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/replica"
)

// TestFeatureLevel: who reads what is known once all are linked; who cannot read the cluster's level is refused from then on.
func TestFeatureLevel(t *testing.T) {
	a, b := newListener(t), newListener(t)
	members := replica.Members{Cluster: "c", List: []replica.Member{
		{ID: 1, Address: a.Addr().String(), Directory: "d1", Voter: true}, {ID: 2, Address: b.Addr().String(), Directory: "d2", Voter: true},
	}}
	one := startNode(t, a, newFakeReplica(1, members), func(cfg *Config) { cfg.Level = 2 })
	if got := one.Behind(1); !slices.Equal(got, []uint64{2}) {
		t.Errorf("Behind(1) before the link = %v, want 2", got)
	}
	two := startNode(t, b, newFakeReplica(2, members), func(cfg *Config) { cfg.Level = 1 })
	linked(t, one, two)
	for level, want := range [][]uint64{nil, nil, {2}} {
		if got := one.Behind(uint32(level)); !slices.Equal(got, want) {
			t.Errorf("Behind(%d) = %v, want %v", level, got, want)
		}
	}
	one.SetLevel(1, "v0.5.0")
	untilHeard(t, two, one)

	one.SetLevel(2, "v0.9.0")
	err := two.ended()
	if refused, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(refused.Reason, "install bridgefour v0.9.0 or newer") {
		t.Errorf("a member that cannot read the level ends with %v", err)
	}
	if len(one.log.with("a node was refused", "reads feature level 1")) == 0 {
		t.Error("the leader does not log that it has refused the member")
	}

	leads(one, one)
	cfg, _ := joining(t, one.address)
	cfg.Level = 1
	if _, err := Join(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "reads feature level 1, and cluster \"test\" (c) is at level 2") {
		t.Errorf("Join() of a program that is too old: %v", err)
	}
	cfg.Level = 2
	if _, err := Join(t.Context(), cfg); err != nil {
		t.Errorf("Join() = %v", err)
	}
}
