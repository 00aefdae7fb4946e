package sim

import "slices"

// Shrink returns a shorter list of faults that still fails and in which no fault can be left out, by delta debugging (Zeller,
// Hildebrandt 2002). It runs at most tries worlds.
func Shrink(faults []Fault, tries int, fails func([]Fault) bool) []Fault {
	for n := 2; len(faults) > 0 && tries > 0; {
		n = min(n, len(faults))
		cut := false
		for i := 0; i < n && tries > 0; i++ {
			from, to := i*len(faults)/n, (i+1)*len(faults)/n
			rest := slices.Concat(faults[:from], faults[to:])
			tries--
			if fails(rest) {
				faults, cut = rest, true
				n = max(n-1, 2)
				break
			}
		}
		if cut {
			continue
		}
		if n == len(faults) {
			return faults
		}
		n *= 2
	}
	return faults
}
