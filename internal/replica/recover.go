package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// A recovery writes a new log beside the old one, and replaces the old one when it is complete.
const (
	recoveringName = "wal.recovering" // incomplete
	recoveredName  = "wal.recovered"  // complete; the old log may be removed already
)

// Recovered is the result of Recover.
type Recovered struct {
	ID          uint64
	Cluster     string // the new id
	Former      string // the one before
	Last        uint64 // the last entry, which is kept
	Uncommitted uint64 // kept entries that this member did not know to be committed
	Dropped     []Member
}

// Recover makes a cluster of one from the data directory of a member whose cluster has lost its majority for good. It keeps all entries of
// its log, committed or not; what only the others had is lost. rename returns the new cluster id for the old one, so that remaining
// members of the old cluster are refused. The other members are removed: they must start with empty directories. The directory must
// not be in use.
func Recover(dir string, rename func(former string) string) (_ Recovered, err error) {
	lock, err := lockDir(dir)
	if err != nil {
		return Recovered{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := checkFormat(dir); err != nil {
		return Recovered{}, err
	}
	if err := finishRecovery(dir); err != nil {
		return Recovered{}, err
	}
	old := newJournal(dir, slog.New(slog.DiscardHandler))
	if !wal.Exist(old.walDir()) {
		return Recovered{}, fmt.Errorf("recover %s: it has no log; give the data directory of a leader", dir)
	}
	rec, err := old.recover(snapStore{dir: filepath.Join(dir, "snap")})
	if err != nil {
		return Recovered{}, err
	}
	if rec.body != nil {
		err = rec.body.Close()
	}
	if err := errors.Join(err, old.close()); err != nil {
		return Recovered{}, err
	}
	members, err := core.MembersAfter(rec.start.Members, rec.entries, rec.head.Overruled)
	if err != nil {
		return Recovered{}, err
	}
	out, head, err := rec.alone(members, rename(members.Cluster))
	if err != nil {
		return Recovered{}, fmt.Errorf("recover %s: %w", dir, err)
	}
	rec.repairTerm()
	if err := writeRecovered(dir, head, rec); err != nil {
		return Recovered{}, err
	}
	return out, finishRecovery(dir)
}

// alone returns the head of a log whose only member is that of rec.
func (rec *recovered) alone(members *Members, cluster string) (Recovered, journalHead, error) {
	self, ok := members.Get(rec.head.ID)
	if !ok {
		if len(members.List) == 0 {
			return Recovered{}, journalHead{}, errors.New("its log is empty: it has joined, but received nothing from the others")
		}
		return Recovered{}, journalHead{}, fmt.Errorf("leader %d was removed from the cluster before: recover the data directory of another", rec.head.ID)
	}
	if cluster == "" || cluster == members.Cluster {
		return Recovered{}, journalHead{}, fmt.Errorf("cluster %s needs a new id, not %q", members.Cluster, cluster)
	}
	self.Voter, self.Directory = true, rec.head.Directory
	out := Recovered{ID: rec.head.ID, Cluster: cluster, Former: members.Cluster, Last: rec.start.Index + uint64(len(rec.entries))}
	out.Uncommitted = out.Last - min(out.Last, max(rec.state.GetCommit(), rec.start.Index))
	first := &Members{Cluster: cluster, Former: append(slices.Clone(members.Former), members.Cluster), List: []Member{self}, Removed: slices.Clone(members.Removed)}
	for _, m := range members.List {
		if m.ID != self.ID {
			out.Dropped = append(out.Dropped, m)
			first.Removed = append(first.Removed, m.ID)
		}
	}
	head := rec.head
	head.Cluster, head.First, head.Overruled = cluster, first, out.Last
	return out, head, nil
}

// repairTerm replaces a term that a message of an older version has brought beyond every valid one. The recovered member is the only voter,
// so only the terms in its log count.
func (rec *recovered) repairTerm() {
	if rec.state.GetTerm() <= core.TermMax {
		return
	}
	last := rec.start.Term
	if n := len(rec.entries); n > 0 {
		last = rec.entries[n-1].GetTerm()
	}
	rec.state = &raftpb.HardState{Term: new(last), Vote: new(uint64(0)), Commit: rec.state.Commit}
}

// writeRecovered writes rec into a log with that head, beside the old one.
func writeRecovered(dir string, head journalHead, rec *recovered) error {
	path := filepath.Join(dir, recoveringName)
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove an unfinished recovery: %w", err)
	}
	j := newJournal(dir, slog.New(slog.DiscardHandler))
	if err := j.begin(path, head); err != nil {
		return err
	}
	write := func() error {
		if rec.start.Index > 0 {
			start := rec.start
			start.Members = head.First
			if err := j.w.SaveSnapshot(walSnapshot(start)); err != nil {
				return err
			}
		}
		// Entries first: a commit index in the log proves that they are durable (see journal.save).
		if err := j.w.Save(nil, rec.entries); err != nil {
			return err
		}
		return j.w.Save(rec.state, nil)
	}
	if err := errors.Join(write(), j.close()); err != nil {
		return fmt.Errorf("write log %s: %w", path, err)
	}
	if err := os.Rename(path, filepath.Join(dir, recoveredName)); err != nil {
		return fmt.Errorf("finish the recovery: %w", err)
	}
	return datadir.SyncDir(dir)
}

// finishRecovery replaces the old log with a complete recovered one.
func finishRecovery(dir string) error {
	path := filepath.Join(dir, recoveredName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// If this is interrupted, the rest of the old log does not count as a log, and the next start continues here.
	if err := os.RemoveAll(filepath.Join(dir, walName)); err != nil {
		return fmt.Errorf("remove the log before the recovery: %w", err)
	}
	if err := os.Rename(path, filepath.Join(dir, walName)); err != nil {
		return fmt.Errorf("finish the recovery: %w", err)
	}
	return datadir.SyncDir(dir)
}
