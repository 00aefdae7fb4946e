package core

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Position is a position in the log, with what a snapshot there must record.
type Position struct {
	Index, Term uint64
	Members     *Members // as of there; not to be changed
}

// beginningIndex is where the logs of the first members begin. A new member of a running cluster begins at 0 instead: raft finds no
// entries before this index, so it always sends a snapshot first, which has the members.
const beginningIndex = 1

// Beginning is the start of the first members of a cluster. It must be the same on each of them.
func Beginning(first Members) Position {
	return Position{Index: beginningIndex, Term: 1, Members: first.clone()}
}

// NewMember is the start of a new member of a running cluster, which learns the members from its first snapshot.
func NewMember(cluster string) Position { return Position{Members: &Members{Cluster: cluster}} }

// Snapshot is raft's description of the snapshot at p. The file is sent separately.
func (p Position) Snapshot() (*raftpb.Snapshot, error) {
	members, err := p.Members.Encode()
	if err != nil {
		return nil, err
	}
	return &raftpb.Snapshot{Data: members, Metadata: &raftpb.SnapshotMetadata{
		Index: new(p.Index), Term: new(p.Term), ConfState: p.Members.ConfState(),
	}}, nil
}

// PositionOf is the inverse of Snapshot.
func PositionOf(s *raftpb.Snapshot) (Position, error) {
	members, err := DecodeMembers(s.GetData())
	if err != nil {
		return Position{}, fmt.Errorf("snapshot at entry %d: %w", s.GetMetadata().GetIndex(), err)
	}
	if err := members.ConfState().Equivalent(raftpb.EnsureConfState(s.GetMetadata().GetConfState())); err != nil {
		return Position{}, fmt.Errorf("snapshot at entry %d is inconsistent: %w", s.GetMetadata().GetIndex(), err)
	}
	return Position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm(), Members: members}, nil
}

// memoryLog is the part of the persisted log that is needed in memory, and the snapshot that replaces the rest.
type memoryLog struct {
	*raft.MemoryStorage
	bytes  int      // of the entries, roughly
	newest Position // snapshot that this node can send; index 0: none
	now    *Members // as of the last committed entry
	wanted bool     // raft needed a snapshot that does not exist
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

// restart drops all entries: the log continues behind p.
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

// append adds durable entries, and replaces those at their indexes and behind.
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

// entriesBytes is roughly the memory of entries.
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

// Snapshot implements raft.Storage: the newest snapshot, if the entries in memory follow it and it has all present members. A new
// member cannot use one that does not have it.
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
