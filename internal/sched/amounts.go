package sched

import (
	"math"
	"slices"

	"github.com/bridgefour/bridgefour/internal/state"
)

// What an attempt takes of a worker besides slots is counted in one way, whatever it is: memory in bytes, resources in pieces.

// amounts is what an attempt of a job takes.
func amounts(spec *state.Spec) []state.Resource {
	if spec.Memory == 0 {
		return spec.Resources
	}
	return append(slices.Clip(spec.Resources), state.Resource{Name: state.Memory, N: spec.Memory})
}

// of returns how many of a resource are in a list.
func of(list []state.Resource, name string) uint64 {
	for i := range list {
		if list[i].Name == name {
			return list[i].N
		}
	}
	return 0
}

// total is how much worker w has for attempts.
func (w *Worker) total(name string) uint64 {
	switch {
	case name != state.Memory:
		return of(w.Resources, name)
	case w.Memory == 0:
		return math.MaxUint64
	}
	return w.Memory
}

// free is how much of that no lease takes.
func (w *Worker) free(name string) uint64 {
	total := w.total(name)
	return total - min(total, w.used[name])
}

// UsedResources is how many pieces of each resource leases take; nil: none.
func (w *Worker) UsedResources() (used map[string]uint64) {
	for name, n := range w.used {
		if name == state.Memory {
			continue
		}
		if used == nil {
			used = map[string]uint64{}
		}
		used[name] = n
	}
	return used
}

// take adds what n leases of a job take, or removes it if n is negative.
func (w *Worker) take(spec *state.Spec, n int) {
	for _, a := range amounts(spec) {
		if w.used == nil {
			w.used = map[string]uint64{}
		}
		if w.used[a.Name] += a.N * uint64(n); w.used[a.Name] == 0 { //nolint:gosec // modulo 2^64
			delete(w.used, a.Name)
		}
	}
}

// lacks is how much of each amount must become free on worker w for an attempt; some is false if nothing must.
func (n *Need) lacks(w *Worker) (list []uint64, some bool) {
	for i, a := range n.amounts {
		if free := w.free(a.Name); a.N > free {
			if list == nil {
				list = make([]uint64, len(n.amounts))
			}
			list[i] = a.N - free
		}
	}
	return list, list != nil
}

// freed subtracts what n attempts of a job release, and reports whether something is still lacking.
func (n *Need) freed(lacks []uint64, spec *state.Spec, attempts int) (some bool) {
	for i := range lacks {
		lacks[i] -= min(lacks[i], of(amounts(spec), n.amounts[i].Name)*uint64(attempts)) //nolint:gosec // a number of leases
		some = some || lacks[i] > 0
	}
	return some
}

// spares reports whether worker w has what an attempt of another need takes, beside what one of n needs.
func (n *Need) spares(other *Need, w *Worker) bool {
	for _, a := range other.amounts {
		free := w.free(a.Name)
		if own := of(n.amounts, a.Name); own > 0 && a.N > free-min(free, own) {
			return false
		}
	}
	return true
}
