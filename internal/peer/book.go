package peer

import (
	"maps"
	"slices"

	"github.com/bridgefour/bridgefour/internal/replica"
)

// book is what this node knows of the members: what the log says, and what they have said of themselves since.
type book struct {
	members replica.Members
	heard   map[uint64]heard
}

// heard is what a member said of itself when it connected.
type heard struct {
	address, directory string
	// moved: it said so after the log named an address for it. Who leads puts it into the log. Once the log has a newer address,
	// this one is only worth a try.
	moved bool
}

func newBook() book { return book{heard: map[uint64]heard{}} }

// setMembers takes what the log says now.
func (b *book) setMembers(m replica.Members) {
	for id, h := range b.heard {
		was, _ := b.member(id)
		if is, ok := m.Get(id); ok && was.Address != is.Address {
			h.moved = false
			b.heard[id] = h
		}
		if slices.Contains(m.Removed, id) {
			delete(b.heard, id)
		}
	}
	b.members = m
}

// hear takes what a member says of itself.
func (b *book) hear(id uint64, address, directory string) {
	b.heard[id] = heard{address: address, directory: directory, moved: true}
}

func (b *book) member(id uint64) (replica.Member, bool) { return b.members.Get(id) }

func (b *book) removed(id uint64) bool { return slices.Contains(b.members.Removed, id) }

// known says whether id is a member, or has connected as one that this node has yet to read of in the log.
func (b *book) known(id uint64) bool {
	_, logged := b.member(id)
	_, said := b.heard[id]
	return logged || said
}

// addresses are where to look for a member, the likeliest first.
func (b *book) addresses(id uint64) []string {
	var all []string
	h := b.heard[id]
	m, _ := b.member(id)
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

// directory is the name of a member's data directory; empty: not known. It is final where the log has it.
func (b *book) directory(id uint64) (name string, logged bool) {
	if m, _ := b.member(id); m.Directory != "" {
		return m.Directory, true
	}
	return b.heard[id].directory, false
}

// news is what the log should say of the members and does not yet. self is this node as it is.
func (b *book) news(self replica.Member) []replica.Member {
	said := maps.Clone(b.heard)
	said[self.ID] = heard{address: self.Address, directory: self.Directory, moved: true}
	var out []replica.Member
	for _, m := range b.members.List {
		h, want := said[m.ID], m
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
