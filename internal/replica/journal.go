package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// segmentBytes is the size of the log's files, which are preallocated, one in advance. With etcd's default of 64 MB an embedded cluster
// that lives for a second would need 128 MB of disk.
const segmentBytes = 16 << 20

// setSegmentBytes sets etcd's package variable once, before any log is opened: the logs' goroutines read it.
//
//nolint:gochecknoglobals // the variable it guards is a global of etcd's package
var setSegmentBytes = sync.OnceFunc(func() { wal.SegmentSizeBytes = segmentBytes })

// journal is the log on disk: etcd's write-ahead log, with recovery from a full disk. It is not safe for concurrent use.
type journal struct {
	dir string // of the data
	log *slog.Logger
	zap *zap.Logger

	w *wal.WAL // nil: it could not be reopened yet

	// state is the newest state to save. Its commit index is written only up to synced (see save).
	state  *raftpb.HardState
	synced entryID // the last entry known to be on disk
	snap   *walpb.Snapshot
	fresh  bool // the log was reopened: state and snap must be written again
}

// recovered is the content of an existing log.
type recovered struct {
	head    journalHead
	start   core.Position   // what entries follow
	body    *openSnapshot   // of start; nil: there is no snapshot
	snaps   []core.Position // newest first, at most two
	state   *raftpb.HardState
	entries []*raftpb.Entry
	bytes   int64
}

func (j *journal) walDir() string { return filepath.Join(j.dir, walName) }

func newJournal(dir string, log *slog.Logger) *journal {
	setSegmentBytes()
	return &journal{dir: dir, log: log, zap: walLogger(log), state: &raftpb.HardState{}}
}

// openJournal opens the log of cfg.Dir, or begins a new one.
func openJournal(cfg Config, store snapStore) (*journal, *recovered, error) {
	if err := checkFormat(cfg.Dir); err != nil {
		return nil, nil, err
	}
	if err := finishRecovery(cfg.Dir); err != nil {
		return nil, nil, err
	}
	j := newJournal(cfg.Dir, cfg.Logger)
	var rec *recovered
	var err error
	if wal.Exist(j.walDir()) {
		rec, err = j.recover(store)
	} else {
		rec, err = j.create(cfg, store)
	}
	if err != nil {
		if noSpace(err) {
			err = j.full(err)
		}
		return nil, nil, err
	}
	return j, rec, nil
}

// create begins an empty log, unless there are traces of an earlier one.
func (j *journal) create(cfg Config, store snapStore) (*recovered, error) {
	snaps, err := store.list()
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(j.dir, formatFile))
	left, rerr := os.ReadDir(j.walDir())
	if err == nil || len(snaps) > 0 || (rerr == nil && len(left) > 0) {
		return nil, fmt.Errorf("the log %s is missing, though data directory %s was in use: restore the directory from a copy; "+
			"or remove it to start empty, which loses every job in it", j.walDir(), j.dir)
	}
	head, err := cfg.newHead()
	if err != nil {
		return nil, err
	}
	if err := j.begin(j.walDir(), head); err != nil {
		return nil, err
	}
	start := head.start()
	if start.Index > 0 {
		if err := j.w.SaveSnapshot(walSnapshot(start)); err != nil {
			return nil, errors.Join(fmt.Errorf("create log %s: %w", j.walDir(), err), j.close())
		}
		j.snap, j.synced = walSnapshot(start), idOf(start)
	}
	return &recovered{head: head, start: start}, nil
}

// begin creates an empty log in dir.
func (j *journal) begin(dir string, head journalHead) error {
	raw, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("encode head of the log: %w", err)
	}
	if j.w, err = wal.Create(j.zap, dir, raw); err != nil {
		return fmt.Errorf("create log %s: %w", dir, err)
	}
	return nil
}

// recover reads the log and opens it for appending.
func (j *journal) recover(store snapStore) (*recovered, error) {
	if err := j.removeTemporary(); err != nil {
		return nil, err
	}
	scan, err := scanLog(j.walDir(), entryID{})
	if err != nil {
		return nil, err
	}
	rec := &recovered{bytes: scan.bytes}
	if rec.head, err = decodeHead(scan.metadata, j.walDir()); err != nil {
		return nil, err
	}
	if err := j.repair(scan); err != nil {
		return nil, err
	}
	if err := j.chooseStart(store, scan, rec); err != nil {
		return nil, err
	}
	record := &walpb.Snapshot{Index: new(uint64(0)), Term: new(uint64(0))}
	if rec.start.Index > 0 {
		record = walSnapshot(rec.start)
		j.snap = record
	}
	if rec.state, rec.entries, err = j.open(record, scan, scan.end); err != nil {
		if rec.body != nil {
			err = errors.Join(err, rec.body.Close())
		}
		return nil, err
	}
	// Entries that a peer's snapshot has superseded and that nothing follows yet are not recognized when reading in order.
	if n := len(rec.entries); n > 0 {
		rec.entries = rec.entries[:min(uint64(n), scan.last.index-min(rec.start.Index, scan.last.index))]
	}
	j.state, j.synced, j.fresh = rec.state, scan.last, true
	return rec, nil
}

// removeTemporary removes preallocated files: a half-written one must not be reused.
func (j *journal) removeTemporary() error {
	files, err := filepath.Glob(filepath.Join(escapeGlob(j.walDir()), "*"+tmpExt))
	if err != nil {
		return fmt.Errorf("list temporary log files: %w", err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return fmt.Errorf("remove temporary log file: %w", err)
		}
	}
	return nil
}

// repair cuts off a torn tail, and gives a file its size that has lost it when it was opened. wal.Repair would copy the whole file first, and never remove
// the copy.
func (j *journal) repair(scan *logScan) error {
	if scan.torn == nil && !scan.short {
		return nil
	}
	path := scan.segments[scan.end.segment].path
	if err := j.cut(scan, scan.end); err != nil {
		return err
	}
	if scan.torn != nil {
		j.log.Warn("log repaired: its last write was torn and never acknowledged", "file", path,
			"at_byte", scan.end.offset, "last_entry", scan.last.index, "cause", scan.torn.Error())
	}
	return nil
}

// cut truncates the log at end. A process that is killed meanwhile, or before the log is open, leaves a mark.
func (j *journal) cut(scan *logScan, end position) error {
	if err := writeOpenMark(j.dir, scan.segments, end); err != nil {
		return err
	}
	return cutLog(scan.segments, end)
}

// chooseStart opens and verifies the newest snapshot that is recorded in the log; without one, it finds where the log begins.
func (j *journal) chooseStart(store snapStore, scan *logScan, rec *recovered) error {
	files, err := store.list()
	if err != nil {
		return err
	}
	for _, p := range files {
		if slices.Contains(scan.snaps, idOf(p)) && p.Index >= scan.base.index && len(rec.snaps) < 2 {
			rec.snaps = append(rec.snaps, p)
		}
	}
	first := scan.segments[0]
	rec.start = rec.head.start()
	if len(rec.snaps) == 0 && (first.index > 1 || scan.base.index > rec.start.Index) {
		return fmt.Errorf("the log begins at entry %d (%s), and no snapshot in %s covers the entries before it: put the snapshot file back, or restore "+
			"the data directory from a copy", max(first.index, scan.base.index+1), first.path, store.dir)
	}
	if len(scan.snaps) == 0 {
		return fmt.Errorf("the log file %s is damaged: its head is cut off: restore the data directory from a copy", first.path)
	}
	have := rec.start.Index
	if len(rec.snaps) > 0 {
		have = rec.snaps[0].Index
	}
	if newest := scan.snaps[len(scan.snaps)-1]; newest.index > have {
		j.log.Warn("newest snapshot missing; starting from an earlier position", "missing_index", newest.index, "index", have)
	}
	if len(rec.snaps) == 0 {
		return nil
	}
	// The members of the older one are not read: only its position is needed.
	if rec.body, err = store.open(rec.snaps[0]); err != nil {
		return err
	}
	rec.snaps[0] = rec.body.at
	rec.start = rec.body.at
	if rec.start.Index <= rec.head.Overruled {
		rec.start.Members = rec.head.First
	}
	err = nil
	if rec.start.Members.Cluster != rec.head.Cluster {
		err = fmt.Errorf("snapshot %s belongs to cluster %s, and this data directory to cluster %s: put the right file back, or restore "+
			"the data directory from a copy", store.path(rec.start), rec.start.Members.Cluster, rec.head.Cluster)
	}
	if err == nil {
		err = store.prune(rec.snaps, true)
	}
	if err != nil {
		return errors.Join(err, rec.body.Close())
	}
	return nil
}

// walSnapshot is the log's record of a snapshot.
func walSnapshot(p core.Position) *walpb.Snapshot {
	return &walpb.Snapshot{Index: new(p.Index), Term: new(p.Term), ConfState: p.Members.ConfState()}
}

// open opens the checked log, whose records end at end, for appending, and returns its content behind start.
func (j *journal) open(start *walpb.Snapshot, scan *logScan, end position) (*raftpb.HardState, []*raftpb.Entry, error) {
	if err := writeOpenMark(j.dir, scan.segments, end); err != nil {
		return nil, nil, err
	}
	w, err := wal.Open(j.zap, j.walDir(), start)
	if err != nil {
		return nil, nil, fmt.Errorf("open log %s: %w", j.walDir(), err)
	}
	_, state, entries, err := w.ReadAll()
	if err == nil {
		err = removeOpenMark(j.dir)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read log %s: %w", j.walDir(), err), w.Close())
	}
	j.w = w
	return state, entries, nil
}

// save makes the batch durable: its entries and its state in one write and one fsync, then its snapshot record.
//
// The commit index is written only up to entries that an earlier save has fsynced, so that a commit index in the log proves that these
// entries were durable (see committedBehind). It is only a hint: raft recomputes it after a restart.
func (j *journal) save(b core.Batch) error {
	if j.w == nil {
		if err := j.reopen(); err != nil {
			return err
		}
	}
	dirty := j.fresh
	if j.fresh && j.snap != nil {
		if err := j.w.SaveSnapshot(j.snap); err != nil {
			return fmt.Errorf("write log %s: %w", j.walDir(), err)
		}
	}
	var entries []*raftpb.Entry
	for _, m := range b.Saves {
		if s := m.GetSnapshot(); !raft.IsEmptySnap(s) { // earlier entries are written before it
			if err := j.append(entries, dirty); err != nil {
				return err
			}
			entries, dirty = nil, true
			if err := j.install(s); err != nil {
				return err
			}
		}
		entries = append(entries, m.GetEntries()...)
		if m.Term != nil || m.Vote != nil || m.Commit != nil {
			j.state, dirty = &raftpb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(m.GetCommit())}, true
		}
	}
	if err := j.append(entries, dirty); err != nil {
		return err
	}
	if b.Snapshot != nil {
		return j.saveSnapshot(b)
	}
	return nil
}

// append writes entries and, if dirty, the state, and fsyncs them.
func (j *journal) append(entries []*raftpb.Entry, dirty bool) error {
	var state *raftpb.HardState
	if dirty {
		state = j.durableState()
	}
	if err := j.w.Save(state, entries); err != nil {
		return fmt.Errorf("write log %s: %w", j.walDir(), err)
	}
	j.fresh = false
	if n := len(entries); n > 0 {
		j.synced = entryID{index: entries[n-1].GetIndex(), term: entries[n-1].GetTerm()}
	}
	return nil
}

// install records a peer's snapshot, whose file is durable: the log continues behind it. Everything before it is void, which a reader
// recognizes because the log did not hold the snapshot's last entry (see logScan.snapshot).
func (j *journal) install(s *raftpb.Snapshot) error {
	record := &walpb.Snapshot{
		Index: new(s.GetMetadata().GetIndex()), Term: new(s.GetMetadata().GetTerm()), ConfState: s.GetMetadata().GetConfState(),
	}
	if err := j.w.SaveSnapshot(record); err != nil {
		return fmt.Errorf("write log %s: %w", j.walDir(), err)
	}
	j.snap, j.synced = record, entryID{index: record.GetIndex(), term: record.GetTerm()}
	if err := j.w.ReleaseLockTo(record.GetIndex()); err != nil {
		return fmt.Errorf("release log %s: %w", j.walDir(), err)
	}
	return nil
}

// durableState returns the state that may be written now.
func (j *journal) durableState() *raftpb.HardState {
	if raft.IsEmptyHardState(j.state) {
		return nil
	}
	st := proto.Clone(j.state).(*raftpb.HardState)
	st.Commit = new(min(j.state.GetCommit(), j.synced.index))
	return st
}

// saveSnapshot records the snapshot of b, and releases the log's files that only older ones need.
func (j *journal) saveSnapshot(b core.Batch) error {
	// Its entries are delivered, so they are durable: the commit index on disk must not be behind the snapshot.
	if err := j.w.Save(j.durableState(), nil); err != nil {
		return fmt.Errorf("write log %s: %w", j.walDir(), err)
	}
	if err := j.w.SaveSnapshot(walSnapshot(*b.Snapshot)); err != nil {
		return fmt.Errorf("write log %s: %w", j.walDir(), err)
	}
	j.snap = walSnapshot(*b.Snapshot)
	if err := j.w.ReleaseLockTo(b.Keep); err != nil {
		return fmt.Errorf("release log %s: %w", j.walDir(), err)
	}
	return nil
}

// reopen opens the log again after a failed write. Everything behind the last entry known to be durable is cut off, even if it looks
// intact: after a failed fsync, the page cache may show what is not on disk.
func (j *journal) reopen() error {
	if err := j.removeTemporary(); err != nil {
		return err
	}
	scan, err := scanLog(j.walDir(), j.synced)
	if err != nil {
		return err
	}
	end := scan.end
	if scan.after != nil {
		end = *scan.after
	}
	if err := j.cut(scan, end); err != nil {
		return err
	}
	start := j.snap
	if start == nil {
		start = &walpb.Snapshot{Index: new(uint64(0)), Term: new(uint64(0))}
	}
	j.fresh = true
	_, _, err = j.open(start, scan, end)
	return err
}

// discard closes the log after a failed write.
func (j *journal) discard() error {
	if j.w == nil {
		return nil
	}
	w := j.w
	j.w = nil
	// etcd's Close returns, with its files open and locked, when its last flush fails; but it has dropped what it could not flush, so a
	// second call succeeds.
	for range 3 {
		err := w.Close()
		if err == nil {
			return nil
		}
		if !noSpace(err) {
			return fmt.Errorf("close log %s: %w", j.walDir(), err)
		}
	}
	return fmt.Errorf("close log %s: its last write cannot be discarded", j.walDir())
}

func (j *journal) close() error {
	if j.w == nil {
		return nil
	}
	w := j.w
	j.w = nil
	if err := w.Close(); err != nil {
		return fmt.Errorf("close log %s: %w", j.walDir(), err)
	}
	return nil
}

// removeSegments removes the log's files that only have entries before keep.
func removeSegments(dir string, keep uint64) error {
	segs, err := listSegments(dir)
	if err != nil {
		return err
	}
	// The same rule as in wal.ReleaseLockTo, which has unlocked them.
	for i := 0; i+1 < len(segs) && segs[i+1].index < keep; i++ {
		if err := os.Remove(segs[i].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove old log file: %w", err)
		}
	}
	return nil
}

// full returns the error for a full disk.
func (j *journal) full(cause error) error {
	free, err := freeBytes(j.dir)
	if err != nil {
		return errors.Join(cause, err)
	}
	return &logFullError{dir: j.dir, free: free, need: reserveBytes, err: cause}
}
