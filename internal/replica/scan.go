package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// segment is a file of the write-ahead log. Its name has its number and the index of the first entry that may be in it.
type segment struct {
	path       string
	seq, index uint64
}

// position is a place between two records of the log.
type position struct {
	segment int // into logScan.segments
	offset  int64
}

// entryID names one version of an entry: an index may be written again in a later term.
type entryID struct{ index, term uint64 }

func idOf(p core.Position) entryID { return entryID{index: p.Index, term: p.Term} }

// logScan is the result of reading the whole log.
type logScan struct {
	segments []segment
	metadata []byte
	snaps    []entryID
	state    *raftpb.HardState
	// runs are the terms of the valid entries: each begins where an entry's term differs from the one before.
	runs []entryID
	last entryID
	// base is the newest snapshot of a peer, or the beginning of the cluster: entries up to it are void.
	base  entryID
	bytes int64 // of the records
	end   position
	torn  error // not nil: the records end at end because the rest is torn
	short bool  // the newest file ends before its size, because it was being opened (openMark)
	// after is the end of the record of the entry to find; nil: not found.
	after *position
}

// listSegments returns the files of the log in dir, in order.
func listSegments(dir string) ([]segment, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	var segs []segment
	for _, f := range files {
		s := segment{path: filepath.Join(dir, f.Name())}
		if n, err := fmt.Sscanf(f.Name(), "%016x-%016x.wal", &s.seq, &s.index); err != nil || n != 2 ||
			f.Name() != fmt.Sprintf("%016x-%016x.wal", s.seq, s.index) {
			continue
		}
		segs = append(segs, s)
	}
	for i := 1; i < len(segs); i++ {
		if segs[i].seq != segs[i-1].seq+1 {
			return nil, fmt.Errorf("the log lacks a file between %s and %s: put it back, or restore the data directory from a copy",
				segs[i-1].path, segs[i].path)
		}
	}
	return segs, nil
}

// scanLog reads and checks every record in dir, which holds at least one segment, and locates the entry find. A tail torn by power loss is
// reported as torn; all other damage is an error.
func scanLog(dir string, find entryID) (*logScan, error) {
	segs, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	s := &logScan{segments: segs, state: &raftpb.HardState{}}
	crc := uint32(0)
	for i := range segs {
		if crc, err = s.scanSegment(i, crc, find); err != nil {
			return nil, err
		}
	}
	if s.state.GetCommit() > s.last.index && !slices.ContainsFunc(s.snaps, func(e entryID) bool { return e.index >= s.state.GetCommit() }) {
		return nil, fmt.Errorf("the log %s ends at entry %d, though entry %d was acknowledged: restore the data directory from a copy",
			dir, s.last.index, s.state.GetCommit())
	}
	return s, nil
}

// scanSegment reads segment i, whose records continue the checksum crc of those before (0: it is the first).
func (s *logScan) scanSegment(i int, crc uint32, find entryID) (uint32, error) {
	path, isLast := s.segments[i].path, i == len(s.segments)-1
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	dec := wal.NewDecoder(fileutil.NewFileReader(f))
	for first, rec := true, (&walpb.Record{}); ; first = false {
		offset := dec.LastOffset()
		err := dec.Decode(rec)
		s.end = position{segment: i, offset: offset}
		if errors.Is(err, io.EOF) && !isLast {
			break // the next segment's first record tells whether all is here
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return dec.LastCRC(), s.endAt(f, offset, isLast, err)
		}
		if rec.GetType() == wal.CrcType {
			want := dec.LastCRC()
			if first {
				want = crc
			}
			if want != 0 && rec.Validate(want) != nil {
				return 0, fmt.Errorf("the log is damaged: records are missing at the end of %s or before byte %d of %s: "+
					"restore the data directory from a copy", s.segments[max(0, i-1)].path, offset, path)
			}
			dec.UpdateCRC(rec.GetCrc())
		}
		if err := s.add(rec); err != nil {
			return 0, fmt.Errorf("the log file %s is damaged at byte %d (%w): restore the data directory from a copy", path, offset, err)
		}
		s.bytes += dec.LastOffset() - offset
		if s.ends(rec.GetType()) && s.last == find {
			s.after = &position{segment: i, offset: dec.LastOffset()}
		}
	}
	return dec.LastCRC(), nil
}

// add adds a record whose checksum is correct.
func (s *logScan) add(rec *walpb.Record) error {
	switch rec.GetType() {
	case wal.EntryType:
		e := &raftpb.Entry{}
		if err := proto.Unmarshal(rec.GetData(), e); err != nil {
			return fmt.Errorf("entry: %w", err)
		}
		if len(s.runs) > 0 && e.GetIndex() > s.last.index+1 {
			return fmt.Errorf("entry %d follows entry %d", e.GetIndex(), s.last.index)
		}
		s.entry(entryID{index: e.GetIndex(), term: e.GetTerm()})
	case wal.StateType:
		st := &raftpb.HardState{}
		if err := proto.Unmarshal(rec.GetData(), st); err != nil {
			return fmt.Errorf("state: %w", err)
		}
		s.state = st
	case wal.SnapshotType:
		snap := &walpb.Snapshot{}
		if err := proto.Unmarshal(rec.GetData(), snap); err != nil {
			return fmt.Errorf("snapshot record: %w", err)
		}
		s.snapshot(entryID{index: snap.GetIndex(), term: snap.GetTerm()})
	case wal.MetadataType:
		s.metadata = rec.GetData()
	case wal.CrcType:
	default:
		return fmt.Errorf("record type %d is unknown", rec.GetType())
	}
	return nil
}

// entry adds e, and drops the entries from its index on.
func (s *logScan) entry(e entryID) {
	for len(s.runs) > 0 && s.runs[len(s.runs)-1].index >= e.index {
		s.runs = s.runs[:len(s.runs)-1]
	}
	if n := len(s.runs); n == 0 || s.runs[n-1].term != e.term {
		s.runs = append(s.runs, e)
	}
	s.last = e
}

// snapshot adds the record of a snapshot. If the log holds its last entry, it is this node's own. Otherwise it is a peer's, and everything
// before it is void.
func (s *logScan) snapshot(at entryID) {
	s.snaps = append(s.snaps, at)
	first := s.segments[0].index
	if len(s.runs) > 0 {
		first = s.runs[0].index
	}
	if at.index == 0 || at.index < first || s.holds(at) {
		return
	}
	s.base, s.last, s.runs = at, at, []entryID{at}
}

// holds reports whether e is among the valid entries.
func (s *logScan) holds(e entryID) bool {
	if e.index > s.last.index {
		return false
	}
	for _, r := range slices.Backward(s.runs) {
		if r.index <= e.index {
			return r.term == e.term
		}
	}
	return false
}

// ends reports whether the record that was just added, of that type, is that of s.last.
func (s *logScan) ends(kind int64) bool {
	return kind == wal.EntryType || (kind == wal.SnapshotType && s.last == s.base && len(s.snaps) > 0 && s.snaps[len(s.snaps)-1] == s.base)
}

// endAt decides why the records of f end at offset; cause is nil if only preallocated space seems to follow.
func (s *logScan) endAt(f *os.File, offset int64, isLast bool, cause error) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	damaged := func(why any) error {
		out := "restore the data directory from a copy"
		if isLast {
			out += fmt.Sprintf("; or, to give up all that was logged after the damage, run: truncate -s %d %s && truncate -s %d %[2]s",
				offset, f.Name(), max(info.Size(), wal.SegmentSizeBytes))
		}
		return fmt.Errorf("the log file %s is damaged at byte %d of %d (%v): %s", f.Name(), offset, info.Size(), why, out)
	}
	if offset == 0 {
		return damaged("its head is missing") // it is fsynced before the file gets its name
	}
	if isLast && info.Size() < wal.SegmentSizeBytes { // it has its whole size before it gets its name, and keeps it unless a start ends in between
		mark, err := readOpenMark(filepath.Dir(filepath.Dir(f.Name())))
		if err != nil {
			return err
		}
		s.short = mark == openMark{name: filepath.Base(f.Name()), end: offset}
	}
	if isLast && info.Size() < wal.SegmentSizeBytes && !s.short {
		return damaged(fmt.Sprintf("its end is cut off: the newest file of the log is never shorter than %d bytes", wal.SegmentSizeBytes))
	}
	if cause != nil && (!isLast || !errors.Is(cause, io.ErrUnexpectedEOF)) {
		return damaged(cause)
	}
	commit, err := committedBehind(f, offset, info.Size(), s.last.index)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if commit > 0 {
		return damaged(fmt.Sprintf("entries up to %d were acknowledged, but only %d can be read", commit, s.last.index))
	}
	s.torn = cause
	return nil
}

// committedBehind looks for a state record behind offset with a commit index beyond last. The log never holds such a record before the
// entries up to it were fsynced (journal.save), so it proves that they are damaged, not torn. Records are aligned to 8 bytes, like
// offset; the checksum chain is broken, so a record is recognized by its form: the length of a state at most, its type, and a state
// that decodes.
func committedBehind(f io.ReaderAt, offset, size int64, last uint64) (uint64, error) {
	const chunkBytes = 64 << 10
	buf := make([]byte, 8+stateRecordMax+chunkBytes)
	for ; offset < size; offset += chunkBytes { // the chunks overlap by a record
		n, err := f.ReadAt(buf, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if n > 0 && buf[0] == 0 && bytes.Equal(buf[:n-1], buf[1:n]) {
			continue // all zeros, as most of a preallocated file is
		}
		for at := 0; at < chunkBytes && at+8 <= n; at += 8 {
			if commit := stateCommit(buf[at:n]); commit > last {
				return commit, nil
			}
		}
	}
	return 0, nil
}

// stateRecordMax exceeds the bytes of any state record.
const stateRecordMax = 64

// stateCommit returns the commit index of the state record at the beginning of b; 0 if there is none.
func stateCommit(b []byte) uint64 {
	n := binary.LittleEndian.Uint64(b) &^ (uint64(0xff) << 56) // the top byte tells the padding
	if n == 0 || n > stateRecordMax || n > uint64(len(b)-8) {
		return 0
	}
	rec, st := &walpb.Record{}, &raftpb.HardState{}
	if proto.Unmarshal(b[8:8+n], rec) != nil || rec.GetType() != wal.StateType || rec.Crc == nil ||
		proto.Unmarshal(rec.GetData(), st) != nil || st.Term == nil {
		return 0
	}
	return st.GetCommit()
}

// openMark is in a file beside the log while the newest file of the log is opened: etcd cuts it off behind its last record, and then gives it its size again.
// After a kill in between, the mark tells this file, which has all its records, from one that has lost some.
type openMark struct {
	name string // of the file
	end  int64  // of its records
}

const openMarkName = "OPENING"

// readOpenMark returns the mark in a data directory; the zero value: there is none.
func readOpenMark(dir string) (openMark, error) {
	data, err := os.ReadFile(filepath.Join(dir, openMarkName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return openMark{}, fmt.Errorf("read log: %w", err)
	}
	var m openMark
	if n, _ := fmt.Sscanf(string(data), "%s %d\n", &m.name, &m.end); n < 2 {
		return openMark{}, nil // none, or one that was not written to its end: the log is not cut off yet
	}
	return m, nil
}

// writeOpenMark makes the mark durable before the file that p is in is cut off.
func writeOpenMark(dir string, segs []segment, p position) error {
	f, err := os.OpenFile(filepath.Join(dir, openMarkName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s %d\n", filepath.Base(segs[p.segment].path), p.offset)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	return datadir.SyncDir(dir)
}

// removeOpenMark removes the mark of a log that is open.
func removeOpenMark(dir string) error {
	if err := os.Remove(filepath.Join(dir, openMarkName)); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	return nil
}

// cutLog truncates the log at p.
func cutLog(segs []segment, p position) error {
	for _, s := range slices.Backward(segs[p.segment+1:]) {
		if err := os.Remove(s.path); err != nil {
			return fmt.Errorf("cut log: %w", err)
		}
	}
	f, err := os.OpenFile(segs[p.segment].path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cut log: %w", err)
	}
	// The file keeps its size: a shorter one would count as damaged.
	if err := errors.Join(f.Truncate(p.offset), f.Truncate(max(p.offset, wal.SegmentSizeBytes)), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cut log: %w", err)
	}
	return datadir.SyncDir(filepath.Dir(segs[p.segment].path))
}
