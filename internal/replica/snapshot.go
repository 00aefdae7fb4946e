package replica

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// A snapshot file, integers little endian:
//
//	magic    8 bytes "B4SNAP\r\n"
//	version  4 bytes, 1
//	index    8 bytes: the last entry that is in the state
//	term     8 bytes: that entry's
//	members  4 bytes length, then raftpb.ConfState
//	body     what the state wrote
//	length   8 bytes: of the body
//	crc      4 bytes: CRC-32C of all before it
const (
	snapMagic     = "B4SNAP\r\n"
	snapVersion   = 1
	snapHeadBytes = 8 + 4 + 8 + 8 + 4
	snapTailBytes = 8 + 4
	snapConfMax   = 1 << 20
	snapExt       = ".snap"
	tmpExt        = ".tmp"
)

// snapMeta is a position in the log with the members as of there.
type snapMeta struct {
	index, term uint64
	conf        *raftpb.ConfState
}

func (m snapMeta) fileName() string { return fmt.Sprintf("%016x-%016x%s", m.index, m.term, snapExt) }

// snapStore is the directory of snapshot files.
type snapStore struct{ dir string }

func (s snapStore) path(m snapMeta) string { return filepath.Join(s.dir, m.fileName()) }

// list gives the positions of the snapshot files, newest first, without their members.
func (s snapStore) list() ([]snapMeta, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var metas []snapMeta
	for _, f := range files {
		var m snapMeta
		if _, err := fmt.Sscanf(f.Name(), "%016x-%016x", &m.index, &m.term); err == nil && m.fileName() == f.Name() {
			metas = append(metas, m)
		}
	}
	slices.SortFunc(metas, func(a, b snapMeta) int {
		if a.index != b.index {
			return cmp.Compare(b.index, a.index)
		}
		return cmp.Compare(b.term, a.term)
	})
	return metas, nil
}

// removeTemporary removes what an interrupted create left behind.
func (s snapStore) removeTemporary() error {
	files, err := filepath.Glob(filepath.Join(escapeGlob(s.dir), "*"+tmpExt))
	if err != nil {
		return fmt.Errorf("list temporary snapshots: %w", err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return fmt.Errorf("remove temporary snapshot: %w", err)
		}
	}
	return nil
}

// escapeGlob makes dir stand for itself in a pattern.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// create writes a snapshot file whose body is what write writes. When it returns nil, the file is durable; else there is none.
func (s snapStore) create(m snapMeta, write func(io.Writer) error) (err error) {
	tmp := s.path(m) + tmpExt
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // closed already, or given up
			err = errors.Join(fmt.Errorf("write snapshot %s: %w", s.path(m), err), os.RemoveAll(tmp))
		}
	}()
	buf := bufio.NewWriterSize(f, 256<<10)
	sum := &summer{w: buf, crc: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	head, err := m.header()
	if err != nil {
		return err
	}
	if _, err := sum.Write(head); err != nil {
		return err
	}
	if err := write(sum); err != nil {
		return err
	}
	length := binary.LittleEndian.AppendUint64(nil, uint64(sum.n-int64(len(head))))
	if _, err := sum.Write(length); err != nil {
		return err
	}
	if _, err := buf.Write(binary.LittleEndian.AppendUint32(nil, sum.crc.Sum32())); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.path(m)); err != nil {
		return err
	}
	return syncDir(s.dir)
}

func (m snapMeta) header() ([]byte, error) {
	conf, err := proto.Marshal(m.conf)
	if err != nil {
		return nil, fmt.Errorf("encode members: %w", err)
	}
	head := []byte(snapMagic)
	head = binary.LittleEndian.AppendUint32(head, snapVersion)
	head = binary.LittleEndian.AppendUint64(head, m.index)
	head = binary.LittleEndian.AppendUint64(head, m.term)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(conf)))
	return append(head, conf...), nil
}

// summer counts and sums what passes.
type summer struct {
	w   io.Writer
	crc hash.Hash32
	n   int64
}

func (s *summer) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.crc.Write(p[:n])
	s.n += int64(n)
	return n, err
}

// open verifies the whole file of m and gives its body and its members.
func (s snapStore) open(m snapMeta) (io.ReadCloser, *raftpb.ConfState, error) {
	f, err := os.Open(s.path(m))
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	body, conf, err := readSnapshot(f, m)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("snapshot %s is damaged (%w): put back a good copy of it; or move it away: then the older "+
			"snapshot, if there is one, and the log are used, and nothing is lost", f.Name(), err), f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{body, f}, conf, nil
}

func readSnapshot(f *os.File, want snapMeta) (io.Reader, *raftpb.ConfState, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	size := info.Size()
	if size < snapHeadBytes+snapTailBytes {
		return nil, nil, fmt.Errorf("only %d bytes long", size)
	}
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.CopyBuffer(struct{ io.Writer }{crc}, io.NewSectionReader(f, 0, size-4), make([]byte, 256<<10)); err != nil {
		return nil, nil, err
	}
	tail := make([]byte, snapTailBytes)
	if _, err := f.ReadAt(tail, size-snapTailBytes); err != nil {
		return nil, nil, err
	}
	if got, want := crc.Sum32(), binary.LittleEndian.Uint32(tail[8:]); got != want {
		return nil, nil, fmt.Errorf("its checksum is %08x, not %08x", got, want)
	}
	head := make([]byte, snapHeadBytes)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, nil, err
	}
	if string(head[:8]) != snapMagic {
		return nil, nil, errors.New("it is no snapshot")
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v != snapVersion {
		return nil, nil, fmt.Errorf("its version is %d, this program reads %d", v, snapVersion)
	}
	got := snapMeta{index: binary.LittleEndian.Uint64(head[12:]), term: binary.LittleEndian.Uint64(head[20:])}
	if got.index != want.index || got.term != want.term {
		return nil, nil, fmt.Errorf("it belongs to entry %d of term %d", got.index, got.term)
	}
	confBytes := int64(binary.LittleEndian.Uint32(head[28:]))
	bodyBytes := size - snapHeadBytes - confBytes - snapTailBytes
	if confBytes > snapConfMax || bodyBytes < 0 || uint64(bodyBytes) != binary.LittleEndian.Uint64(tail) {
		return nil, nil, errors.New("its lengths do not add up")
	}
	raw, conf := make([]byte, confBytes), &raftpb.ConfState{}
	if _, err := f.ReadAt(raw, snapHeadBytes); err != nil {
		return nil, nil, err
	}
	if err := proto.Unmarshal(raw, conf); err != nil {
		return nil, nil, fmt.Errorf("decode members: %w", err)
	}
	return io.NewSectionReader(f, snapHeadBytes+confBytes, bodyBytes), conf, nil
}

// keep removes all snapshots but these, oldest first.
func (s snapStore) keep(wanted []snapMeta) error {
	metas, err := s.list()
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(metas) {
		if slices.ContainsFunc(wanted, func(w snapMeta) bool { return w.index == m.index && w.term == m.term }) {
			continue
		}
		if err := os.Remove(s.path(m)); err != nil {
			return fmt.Errorf("remove old snapshot: %w", err)
		}
	}
	return nil
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync directory %s: %w", dir, err), d.Close())
	}
	return d.Close()
}
