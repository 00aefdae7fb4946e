package peer

import (
	"maps"
	"slices"

	"github.com/bridgefour/bridgefour/internal/replica"
)

// members are the members as the log has them, and what they have announced since.
type members struct {
	logged    replica.Members
	announced map[uint64]announcement
}

// announcement is the address and directory with which a member connected.
type announcement struct {
	address, directory string
	// moved: announced after the log had an address for it; the leader writes it to the log. Once the log has a newer address,
	// this one is only a fallback.
	moved bool
}

func newMembers() members { return members{announced: map[uint64]announcement{}} }

// setMembers replaces the members as the log has them.
func (ms *members) setMembers(m replica.Members) {
	for id, a := range ms.announced {
		was, _ := ms.member(id)
		if is, ok := m.Get(id); ok && was.Address != is.Address {
			a.moved = false
			ms.announced[id] = a
		}
		if slices.Contains(m.Removed, id) {
			delete(ms.announced, id)
		}
	}
	ms.logged = m
}

// announce records what a member has announced.
func (ms *members) announce(id uint64, address, directory string) {
	ms.announced[id] = announcement{address: address, directory: directory, moved: true}
}

func (ms *members) member(id uint64) (replica.Member, bool) { return ms.logged.Get(id) }

func (ms *members) removed(id uint64) bool { return slices.Contains(ms.logged.Removed, id) }

// known reports whether id is a member, or has connected as one that is not in this node's log yet.
func (ms *members) known(id uint64) bool {
	_, logged := ms.member(id)
	_, announced := ms.announced[id]
	return logged || announced
}

// addresses returns the addresses to try for a member, the likeliest first.
func (ms *members) addresses(id uint64) []string {
	var all []string
	h := ms.announced[id]
	m, _ := ms.member(id)
	both := []string{h.address, m.Address}
	if !h.moved {
		slices.Reverse(both)
	}
	for _, a := range both {
		if a != "" && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// directory returns the name of a member's data directory; empty: not known. It is final if the log has it.
func (ms *members) directory(id uint64) (name string, logged bool) {
	if m, _ := ms.member(id); m.Directory != "" {
		return m.Directory, true
	}
	return ms.announced[id].directory, false
}

// updates returns the members whose entry in the log is outdated, as it should be. self is this node.
func (ms *members) updates(self replica.Member) []replica.Member {
	announced := maps.Clone(ms.announced)
	announced[self.ID] = announcement{address: self.Address, directory: self.Directory, moved: true}
	var out []replica.Member
	for _, m := range ms.logged.List {
		h, want := announced[m.ID], m
		if h.moved && h.address != "" {
			want.Address = h.address
		}
		if want.Directory == "" {
			want.Directory = h.directory
		}
		if want != m {
			out = append(out, want)
		}
	}
	return out
}
