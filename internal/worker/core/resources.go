package core

// ids are the resources of a worker, by name. An attempt has its own until nothing of it is left: its slot is idle then.
type ids struct {
	all   map[string][]string
	taken map[string]map[string]struct{} // by slots
}

func newIDs(all map[string][]string) ids {
	i := ids{all, map[string]map[string]struct{}{}}
	for name := range all {
		i.taken[name] = map[string]struct{}{}
	}
	return i
}

// has reports whether there are as many free as are needed.
func (i ids) has(need map[string]uint32) bool {
	for name, n := range need {
		if uint64(n) > uint64(len(i.all[name])-len(i.taken[name])) {
			return false
		}
	}
	return true
}

// take takes as many as are needed, the first ones; nil: none are needed.
func (i ids) take(need map[string]uint32) map[string][]string {
	if len(need) == 0 {
		return nil
	}
	got := make(map[string][]string, len(need))
	for name, n := range need {
		for _, id := range i.all[name] {
			if len(got[name]) == int(n) {
				break
			}
			if _, taken := i.taken[name][id]; !taken {
				i.taken[name][id] = struct{}{}
				got[name] = append(got[name], id)
			}
		}
	}
	return got
}

// release gives back what an attempt had.
func (i ids) release(got map[string][]string) {
	for name, list := range got {
		for _, id := range list {
			delete(i.taken[name], id)
		}
	}
}
