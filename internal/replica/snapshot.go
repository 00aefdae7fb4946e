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

	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// A snapshot file, integers little endian:
//
//	magic    8 bytes "B4SNAP\r\n"
//	version  4 bytes, 2
//	index    8 bytes: the last entry that is in the state
//	term     8 bytes: that entry's
//	members  4 bytes length, then Members as JSON
//	body     the state
//	length   8 bytes: of the body
//	crc      4 bytes: CRC-32C of all before it
const (
	snapMagic      = "B4SNAP\r\n"
	snapVersion    = 2
	snapHeadBytes  = 8 + 4 + 8 + 8 + 4
	snapTailBytes  = 8 + 4
	snapMembersMax = 1 << 20
	snapExt        = ".snap"
	tmpExt         = ".tmp"
)

func fileName(p core.Position) string { return fmt.Sprintf("%016x-%016x%s", p.Index, p.Term, snapExt) }

// snapStore is the directory of snapshot files.
type snapStore struct{ dir string }

func (s snapStore) path(p core.Position) string { return filepath.Join(s.dir, fileName(p)) }

// list returns the positions of the snapshot files, newest first, without their members.
func (s snapStore) list() ([]core.Position, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var found []core.Position
	for _, f := range files {
		var p core.Position
		if _, err := fmt.Sscanf(f.Name(), "%016x-%016x", &p.Index, &p.Term); err == nil && fileName(p) == f.Name() {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b core.Position) int {
		return cmp.Or(cmp.Compare(b.Index, a.Index), cmp.Compare(b.Term, a.Term))
	})
	return found, nil
}

// removeTemporary removes files of an interrupted create.
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

// escapeGlob escapes dir for a glob pattern.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// create writes a snapshot file with the body from write. When it returns nil, the file is durable; otherwise there is none.
func (s snapStore) create(p core.Position, write func(io.Writer) error) (err error) {
	tmp := s.path(p) + tmpExt
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // it may be closed already
			err = errors.Join(fmt.Errorf("write snapshot %s: %w", s.path(p), err), os.RemoveAll(tmp))
		}
	}()
	buf := bufio.NewWriterSize(f, 256<<10)
	sum := &summer{w: buf, crc: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	head, err := snapshotHeader(p)
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
	if err := os.Rename(tmp, s.path(p)); err != nil {
		return err
	}
	return datadir.SyncDir(s.dir)
}

func snapshotHeader(p core.Position) ([]byte, error) {
	members, err := p.Members.Encode()
	if err != nil {
		return nil, err
	}
	head := []byte(snapMagic)
	head = binary.LittleEndian.AppendUint32(head, snapVersion)
	head = binary.LittleEndian.AppendUint64(head, p.Index)
	head = binary.LittleEndian.AppendUint64(head, p.Term)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(members)))
	return append(head, members...), nil
}

// summer counts the bytes written, and computes their checksum.
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

// errSnapVersion means that the file is intact, but has another version of the format.
var errSnapVersion = errors.New("another version")

// openSnapshot is a verified snapshot file, positioned at its body.
type openSnapshot struct {
	at core.Position
	io.Reader
	io.Closer
}

// open opens and verifies the file of p, whose members need not be known.
func (s snapStore) open(p core.Position) (*openSnapshot, error) {
	f, err := os.Open(s.path(p))
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	body, members, err := readSnapshot(f, p)
	if errors.Is(err, errSnapVersion) {
		return nil, errors.Join(fmt.Errorf("snapshot %s: %w: use the program that wrote it", f.Name(), err), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot %s is damaged (%w): restore a good copy of it; or move it away: the older "+
			"snapshot, if there is one, and the log are then used, and nothing is lost", f.Name(), err), f.Close())
	}
	p.Members = members
	return &openSnapshot{at: p, Reader: body, Closer: f}, nil
}

// receive copies the file of p from src, verifies it, makes it durable and leaves it open. On an error there is no file.
func (s snapStore) receive(p core.Position, src io.Reader) (_ *openSnapshot, err error) {
	f, err := os.CreateTemp(s.dir, "received-*"+tmpExt)
	if err != nil {
		return nil, fmt.Errorf("receive snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("receive snapshot %s: %w", fileName(p), err), f.Close(), os.RemoveAll(f.Name()))
		}
	}()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, src, make([]byte, 256<<10)); err != nil {
		return nil, err
	}
	body, members, err := readSnapshot(f, p)
	if err != nil {
		return nil, fmt.Errorf("the received file is damaged (%w)", err)
	}
	if !members.Equal(p.Members) {
		return nil, errors.New("its members differ from those of the message")
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), s.path(p)); err != nil {
		return nil, err
	}
	return &openSnapshot{at: p, Reader: body, Closer: f}, datadir.SyncDir(s.dir)
}

func readSnapshot(f *os.File, want core.Position) (io.Reader, *core.Members, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	size := info.Size()
	if size < snapHeadBytes+snapTailBytes {
		return nil, nil, fmt.Errorf("only %d bytes long", size)
	}
	head := make([]byte, snapHeadBytes)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, nil, err
	}
	if string(head[:8]) != snapMagic {
		return nil, nil, errors.New("not a snapshot")
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
	if v := binary.LittleEndian.Uint32(head[8:]); v != snapVersion {
		return nil, nil, fmt.Errorf("%w: its version is %d, this program reads %d", errSnapVersion, v, snapVersion)
	}
	got := core.Position{Index: binary.LittleEndian.Uint64(head[12:]), Term: binary.LittleEndian.Uint64(head[20:])}
	if got.Index != want.Index || got.Term != want.Term {
		return nil, nil, fmt.Errorf("it belongs to entry %d of term %d", got.Index, got.Term)
	}
	membersBytes := int64(binary.LittleEndian.Uint32(head[28:]))
	bodyBytes := size - snapHeadBytes - membersBytes - snapTailBytes
	if membersBytes > snapMembersMax || bodyBytes < 0 || uint64(bodyBytes) != binary.LittleEndian.Uint64(tail) {
		return nil, nil, errors.New("its lengths are inconsistent")
	}
	raw := make([]byte, membersBytes)
	if _, err := f.ReadAt(raw, snapHeadBytes); err != nil {
		return nil, nil, err
	}
	members, err := core.DecodeMembers(raw)
	if err != nil {
		return nil, nil, err
	}
	return io.NewSectionReader(f, snapHeadBytes+membersBytes, bodyBytes), members, nil
}

// prune removes all snapshots but the wanted ones, which are sorted newest first. Those newer than all of them, which may be about to be
// recorded in the log, are removed only if newer is set.
func (s snapStore) prune(wanted []core.Position, newer bool) error {
	found, err := s.list()
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(found) {
		if slices.ContainsFunc(wanted, func(w core.Position) bool { return idOf(w) == idOf(p) }) || (!newer && p.Index > wanted[0].Index) {
			continue
		}
		if err := s.remove(p); err != nil {
			return err
		}
	}
	return nil
}

// remove removes the file of p, if it exists.
func (s snapStore) remove(p core.Position) error {
	if err := os.Remove(s.path(p)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old snapshot: %w", err)
	}
	return nil
}
