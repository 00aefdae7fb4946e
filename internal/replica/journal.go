package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// segmentBytes is the size of the log's files, preallocated, one ahead of need. etcd's default of 64 MB costs an embedded
// cluster that lives for a second 128 MB of disk.
const segmentBytes = 16 << 20

// setSegmentBytes sets etcd's package variable, once and before any log is opened: the logs' goroutines read it.
//
//nolint:gochecknoglobals // the variable it guards is a global of etcd's package
var setSegmentBytes = sync.OnceFunc(func() { wal.SegmentSizeBytes = segmentBytes })

const (
	formatFile = "FORMAT"
	formatText = "bridgefour log 1\n"
)

// journalHead is what stands at the head of each log file.
type journalHead struct {
	Version int      `json:"version"`
	ID      uint64   `json:"id"`
	Voters  []uint64 `json:"voters"` // the first members
}

// journal is the log on disk: etcd's write-ahead log and what it takes to survive a full disk. It is not safe for
// concurrent use.
type journal struct {
	dir string // of the data
	log *slog.Logger
	zap *zap.Logger

	w *wal.WAL // nil: it could not be opened again yet

	// state is the newest that was to be saved. Its commit index is written only up to synced (see save).
	state  *raftpb.HardState
	synced entryID // the last entry known to be on disk
	snap   *walpb.Snapshot
	fresh  bool // the log was opened again: state and snap are to be written again
}

// recovered is what an existing log holds.
type recovered struct {
	head    journalHead
	body    *openSnapshot // nil: none
	snaps   []snapMeta    // newest first, at most two
	state   *raftpb.HardState
	entries []*raftpb.Entry
	bytes   int64
}

func (j *journal) walDir() string { return filepath.Join(j.dir, "wal") }

// openJournal opens the log of dir, or begins one whose only member is id.
func openJournal(dir string, id uint64, store snapStore, log *slog.Logger) (*journal, *recovered, error) {
	setSegmentBytes()
	j := &journal{dir: dir, log: log, zap: walLogger(log), state: &raftpb.HardState{}}
	if err := checkFormat(dir); err != nil {
		return nil, nil, err
	}
	var rec *recovered
	var err error
	if wal.Exist(j.walDir()) {
		rec, err = j.recover(store)
	} else {
		rec, err = j.create(id, store)
	}
	if err != nil {
		if noSpace(err) {
			err = j.full(err)
		}
		return nil, nil, err
	}
	return j, rec, nil
}

// markFormat writes the version of the layout where it is missing. It is not fsynced: its absence costs a check only.
func markFormat(dir string) error {
	path := filepath.Join(dir, formatFile)
	if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
		return nil
	}
	if err := os.WriteFile(path, []byte(formatText), 0o600); err != nil && !noSpace(err) {
		return fmt.Errorf("mark data directory: %w", err)
	}
	return nil
}

// checkFormat refuses a layout of another version.
func checkFormat(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, formatFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read format of the data directory: %w", err)
	}
	if len(text) > 0 && string(text) != formatText {
		return fmt.Errorf("data directory %s has the format %q, this program reads %q: use the program that wrote it, or another directory",
			dir, strings.TrimSpace(string(text)), strings.TrimSpace(formatText))
	}
	return nil
}

// create begins an empty log, unless there are signs that there was one.
func (j *journal) create(id uint64, store snapStore) (*recovered, error) {
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
	head := journalHead{Version: 1, ID: id, Voters: []uint64{id}}
	raw, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encode head of the log: %w", err)
	}
	if j.w, err = wal.Create(j.zap, j.walDir(), raw); err != nil {
		return nil, fmt.Errorf("create log %s: %w", j.walDir(), err)
	}
	return &recovered{head: head}, nil
}

// recover reads what the log holds and opens it for appending.
func (j *journal) recover(store snapStore) (*recovered, error) {
	if err := j.removeTemporary(); err != nil {
		return nil, err
	}
	scan, err := scanLog(j.walDir(), entryID{})
	if err != nil {
		return nil, err
	}
	rec := &recovered{bytes: scan.bytes}
	if err := json.Unmarshal(scan.metadata, &rec.head); err != nil || rec.head.Version != 1 || rec.head.ID == 0 {
		return nil, fmt.Errorf("the log %s is not one of this program (its head is %q): use another data directory",
			j.walDir(), scan.metadata)
	}
	if scan.torn != nil {
		if err := j.repair(scan); err != nil {
			return nil, err
		}
	}
	if err := j.chooseSnapshot(store, scan, rec); err != nil {
		return nil, err
	}
	start := &walpb.Snapshot{Index: new(uint64(0)), Term: new(uint64(0))}
	if rec.body != nil {
		start = rec.body.meta.record()
		j.snap = start
	}
	if rec.state, rec.entries, err = j.open(start); err != nil {
		if rec.body != nil {
			err = errors.Join(err, rec.body.Close())
		}
		return nil, err
	}
	// A snapshot is of committed entries, whatever the last state record says: see save.
	rec.state.Commit = new(max(rec.state.GetCommit(), start.GetIndex()))
	j.state, j.synced, j.fresh = rec.state, scan.last, true
	return rec, nil
}

// removeTemporary removes files that were being prepared: a half-written one must not be taken up again.
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

// repair cuts a torn tail off. wal.Repair would first copy the whole file, and never remove the copy.
func (j *journal) repair(scan *logScan) error {
	path := scan.segments[scan.end.segment].path
	if err := cutLog(scan.segments, scan.end); err != nil {
		return err
	}
	j.log.Warn("log repaired: its last write was torn and never acknowledged", "file", path,
		"at_byte", scan.end.offset, "last_entry", scan.last.index, "cause", scan.torn.Error())
	return nil
}

// openSnapshot is the snapshot that the state starts from.
type openSnapshot struct {
	meta snapMeta
	io.ReadCloser
}

// chooseSnapshot finds the newest snapshot that the log knows, and verifies and opens it.
func (j *journal) chooseSnapshot(store snapStore, scan *logScan, rec *recovered) error {
	files, err := store.list()
	if err != nil {
		return err
	}
	for _, m := range files {
		if slices.Contains(scan.snaps, entryID{index: m.index, term: m.term}) && len(rec.snaps) < 2 {
			rec.snaps = append(rec.snaps, m)
		}
	}
	first := scan.segments[0]
	if len(rec.snaps) == 0 && first.index > 1 {
		return fmt.Errorf("the log begins at entry %d (%s), and no snapshot in %s leads up to it: put the snapshot file back, or restore "+
			"the data directory from a copy", first.index, first.path, store.dir)
	}
	if len(scan.snaps) == 0 {
		return fmt.Errorf("the log file %s is damaged: its head is cut off: restore the data directory from a copy", first.path)
	}
	have := uint64(0)
	if len(rec.snaps) > 0 {
		have = rec.snaps[0].index
	}
	if newest := scan.snaps[len(scan.snaps)-1]; newest.index > have {
		j.log.Warn("the newest snapshot is missing; starting from what was before it", "missing_index", newest.index, "index", have)
	}
	if len(rec.snaps) == 0 {
		return nil
	}
	// The members of the older one are in its file; only its position is needed from now on.
	body, conf, err := store.open(rec.snaps[0])
	if err != nil {
		return err
	}
	rec.snaps[0].conf = conf
	rec.body = &openSnapshot{meta: rec.snaps[0], ReadCloser: body}
	if err := store.keep(rec.snaps); err != nil {
		return errors.Join(err, body.Close())
	}
	return nil
}

// record is what the log says of a snapshot.
func (m snapMeta) record() *walpb.Snapshot {
	return &walpb.Snapshot{Index: new(m.index), Term: new(m.term), ConfState: m.conf}
}

// open opens the checked log for appending and gives what it holds beyond start.
func (j *journal) open(start *walpb.Snapshot) (*raftpb.HardState, []*raftpb.Entry, error) {
	w, err := wal.Open(j.zap, j.walDir(), start)
	if err != nil {
		return nil, nil, fmt.Errorf("open log %s: %w", j.walDir(), err)
	}
	_, state, entries, err := w.ReadAll()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read log %s: %w", j.walDir(), err), w.Close())
	}
	j.w = w
	return state, entries, nil
}

// save makes the batch durable: its entries and its state in one write and one fsync, then its snapshot record.
//
// The commit index is written only up to entries that an earlier save has fsynced, so that one found in the log proves that
// these entries were durable (see committedBehind). It is a hint anyway: raft finds it again after a restart.
func (j *journal) save(b batch) error {
	var entries []*raftpb.Entry
	dirty := j.fresh
	for _, m := range b.saves {
		entries = append(entries, m.GetEntries()...)
		if m.Term != nil || m.Vote != nil || m.Commit != nil {
			j.state, dirty = &raftpb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(m.GetCommit())}, true
		}
	}
	if j.w == nil {
		if err := j.reopen(); err != nil {
			return err
		}
	}
	if j.fresh && j.snap != nil {
		if err := j.w.SaveSnapshot(j.snap); err != nil {
			return fmt.Errorf("write log %s: %w", j.walDir(), err)
		}
	}
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
	if b.snap != nil {
		return j.saveSnapshot(b)
	}
	return nil
}

// durableState is the state as it may be written now.
func (j *journal) durableState() *raftpb.HardState {
	if raft.IsEmptyHardState(j.state) {
		return nil
	}
	st := proto.Clone(j.state).(*raftpb.HardState)
	st.Commit = new(min(j.state.GetCommit(), j.synced.index))
	return st
}

// saveSnapshot records that the snapshot of b is there, and lets go of the log's files that only older ones need.
func (j *journal) saveSnapshot(b batch) error {
	// Its entries are delivered, so they are durable: the commit index on disk must not be behind the snapshot.
	if err := j.w.Save(j.durableState(), nil); err != nil {
		return fmt.Errorf("write log %s: %w", j.walDir(), err)
	}
	if err := j.w.SaveSnapshot(b.snap.record()); err != nil {
		return fmt.Errorf("write log %s: %w", j.walDir(), err)
	}
	j.snap = b.snap.record()
	if err := j.w.ReleaseLockTo(b.keep); err != nil {
		return fmt.Errorf("release log %s: %w", j.walDir(), err)
	}
	return nil
}

// reopen opens the log again after a failed write. What followed the last entry known to be durable is cut off even where it
// looks whole: after a failed fsync, the page cache may show what is not on disk.
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
	if err := cutLog(scan.segments, end); err != nil {
		return err
	}
	start := j.snap
	if start == nil {
		start = &walpb.Snapshot{Index: new(uint64(0)), Term: new(uint64(0))}
	}
	j.fresh = true
	_, _, err = j.open(start)
	return err
}

// discard closes the log after a failed write.
func (j *journal) discard() error {
	if j.w == nil {
		return nil
	}
	w := j.w
	j.w = nil
	// etcd's Close gives up, with its files open and locked, when its last flush fails; what it could not flush is forgotten
	// by then, so that a second call gets through.
	for range 3 {
		err := w.Close()
		if err == nil {
			return nil
		}
		if !noSpace(err) {
			return fmt.Errorf("close log %s: %w", j.walDir(), err)
		}
	}
	return fmt.Errorf("close log %s: its last write cannot be given up", j.walDir())
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

// removeSegments removes the log's files that hold nothing from entry keep on.
func removeSegments(dir string, keep uint64) error {
	segs, err := listSegments(dir)
	if err != nil {
		return err
	}
	// The same rule as wal.ReleaseLockTo, which has let go of them.
	for i := 0; i+1 < len(segs) && segs[i+1].index < keep; i++ {
		if err := os.Remove(segs[i].path); err != nil {
			return fmt.Errorf("remove old log file: %w", err)
		}
	}
	return nil
}

// full makes the error that says that there is no room.
func (j *journal) full(cause error) error {
	free, err := freeBytes(j.dir)
	if err != nil {
		return errors.Join(cause, err)
	}
	return &logFullError{dir: j.dir, free: free, need: reserveBytes, err: cause}
}
