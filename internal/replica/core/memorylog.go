package core

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Position is a place in the log: what a snapshot of the state after the entry at Index must say of the log.
type Position struct {
	Index, Term uint64
	Members     *Members // as of there; not changed by anybody
}

// beginningIndex is the position of the first members of a cluster: entries follow it. A new member of a running cluster starts
// at 0 instead, so that raft, which finds nothing before this position, always sends it a snapshot, with the members in it.
const beginningIndex = 1

// Beginning is where the first members of a cluster start from; it must be the same on each of them.
func Beginning(first Members) Position {
	return Position{Index: beginningIndex, Term: 1, Members: first.clone()}
}

// NewMember is where a new member of a running cluster starts from: it knows nobody, and waits to be told.
func NewMember(cluster string) Position { return Position{Members: &Members{Cluster: cluster}} }

// Snapshot is what raft sends to who needs the snapshot at p; its file goes another way.
func (p Position) Snapshot() (*raftpb.Snapshot, error) {
	members, err := p.Members.Encode()
	if err != nil {
		return nil, err
	}
	return &raftpb.Snapshot{Data: members, Metadata: &raftpb.SnapshotMetadata{
		Index: new(p.Index), Term: new(p.Term), ConfState: p.Members.ConfState(),
	}}, nil
}

// PositionOf reads what snapshot made.
func PositionOf(s *raftpb.Snapshot) (Position, error) {
	members, err := DecodeMembers(s.GetData())
	if err != nil {
		return Position{}, fmt.Errorf("snapshot at entry %d: %w", s.GetMetadata().GetIndex(), err)
	}
	if err := members.ConfState().Equivalent(raftpb.EnsureConfState(s.GetMetadata().GetConfState())); err != nil {
		return Position{}, fmt.Errorf("snapshot at entry %d contradicts itself: %w", s.GetMetadata().GetIndex(), err)
	}
	return Position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm(), Members: members}, nil
}

// memoryLog is the part of the log that is on disk and still needed in memory, and the snapshot that stands for the rest.
type memoryLog struct {
	*raft.MemoryStorage
	bytes  int      // of the entries, roughly
	newest Position // of the snapshots that this node can send; index 0: none
	now    *Members // as of the newest entry taken
	wanted bool     // raft wanted a snapshot that there is not
}

func newMemoryLog(start Position, state *raftpb.HardState, entries []*raftpb.Entry) (*memoryLog, error) {
	l := &memoryLog{MemoryStorage: raft.NewMemoryStorage(), now: start.Members}
	if err := l.restart(start); err != nil {
		return nil, err
	}
	if err := l.append(entries); err != nil {
		return nil, err
	}
	return l, l.SetHardState(state)
}

// restart drops all entries: the log goes on behind p.
func (l *memoryLog) restart(p Position) error {
	s, err := p.Snapshot()
	if err != nil {
		return err
	}
	l.bytes = 0
	if err := l.ApplySnapshot(s); err != nil {
		return fmt.Errorf("start the log at entry %d: %w", p.Index, err)
	}
	return nil
}

// append adds entries that are durable, in place of those that were at their indexes.
func (l *memoryLog) append(entries []*raftpb.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	if from := max(first, entries[0].GetIndex()); from <= last {
		replaced, err := l.Entries(from, last+1, ^uint64(0))
		if err != nil {
			return fmt.Errorf("replace entries from %d on: %w", from, err)
		}
		l.bytes -= entriesBytes(replaced)
	}
	l.bytes += entriesBytes(entries)
	return l.Append(entries)
}

// entriesBytes is what entries cost in memory, roughly.
func entriesBytes(entries []*raftpb.Entry) int {
	n := len(entries) * entryOverheadBytes
	for _, e := range entries {
		n += len(e.GetData())
	}
	return n
}

// trim drops the entries up to index.
func (l *memoryLog) trim(index uint64) error {
	first, err := l.FirstIndex()
	if err != nil {
		return fmt.Errorf("drop entries up to %d: %w", index, err)
	}
	if index < first {
		return nil
	}
	dropped, err := l.Entries(first, index+1, ^uint64(0))
	if err != nil {
		return fmt.Errorf("drop entries up to %d: %w", index, err)
	}
	l.bytes -= entriesBytes(dropped)
	if err := l.Compact(index); err != nil {
		return fmt.Errorf("drop entries up to %d: %w", index, err)
	}
	return nil
}

// trimTo drops entries up to index at most, until about bytes of them are left.
func (l *memoryLog) trimTo(bytes int, index uint64) error {
	first, err := l.FirstIndex()
	if err != nil || l.bytes <= bytes || index < first {
		return err
	}
	candidates, err := l.Entries(first, index+1, ^uint64(0))
	if err != nil {
		return fmt.Errorf("drop entries up to %d: %w", index, err)
	}
	excess, n := l.bytes-bytes, 0
	for excess > 0 && n < len(candidates) {
		excess -= entriesBytes(candidates[n : n+1])
		n++
	}
	return l.trim(candidates[n-1].GetIndex())
}

// Snapshot implements raft.Storage: the newest snapshot, if the entries in memory follow it and it knows all members of now.
// One that does not know a new member is of no use to that one, which would not find itself in it.
func (l *memoryLog) Snapshot() (*raftpb.Snapshot, error) {
	first, err := l.FirstIndex()
	if err != nil {
		return nil, err
	}
	usable := l.newest.Index > beginningIndex && l.newest.Index+1 >= first
	for _, m := range l.now.List {
		if usable {
			_, usable = l.newest.Members.Get(m.ID)
		}
	}
	if !usable {
		l.wanted = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return l.newest.Snapshot()
}
