package blob

import (
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/dustin/go-humanize"
)

// Version tells, without reading a file, whether its content is what it was. The store decides what the identity is.
type Version struct {
	Size     int64
	Modified int64 // Unix ns
	// Identity tells the file from others that have had its name, and stays when the file grows. 0: unknown. See newIdentity.
	Identity uint64
}

// newIdentity makes an identity. origin is where it is from, such as the file system: those of two origins are not comparable. birth is part
// of the time of creation, or 0: the inode of a file that was removed is used again. For an object, which never grows, birth and file may
// be a hash of its version. The numbers of files that were created together stay close.
func newIdentity(origin, birth uint16, file uint64) uint64 {
	return uint64(origin)<<48 | uint64(birth)<<32 | uint64(uint32(file^file>>32)) //nolint:gosec // folded
}

// sameFile reports whether two identities may be of one file.
func sameFile(a, b uint64) bool {
	if a == 0 || b == 0 || a>>48 != b>>48 {
		return true
	}
	return uint32(a) == uint32(b) && (uint16(a>>32) == uint16(b>>32) || uint16(a>>32) == 0 || uint16(b>>32) == 0) //nolint:gosec // the parts
}

// Change is how a file differs from an earlier version.
type Change uint8

// The changes of a file.
const (
	Same    Change = iota
	Grown          // appended to: as far as the earlier version reached, the content is taken to be the same
	Changed        // rewritten, truncated, replaced or touched
)

// To returns the change from v to a later version.
func (v Version) To(now Version) Change {
	switch {
	case !sameFile(v.Identity, now.Identity), now.Size < v.Size:
		return Changed
	case now.Size > v.Size:
		return Grown
	case v.Modified != now.Modified:
		return Changed
	}
	return Same
}

// tailBytes is how much of a file TailSum reads.
const tailBytes = 4 << 10

// TailSum returns a sum of the bytes before size, which tells a file that was appended to from one that was rewritten. It is 0 if the
// store cannot read them: then its files do not grow.
func TailSum(file File, size int64) (uint64, error) {
	local, ok := file.(LocalFile)
	if !ok {
		return 0, nil
	}
	tail := make([]byte, min(size, tailBytes))
	if _, err := local.ReadAt(tail, size-int64(len(tail))); err != nil {
		return 0, explain("read", Location(local.Name()), err)
	}
	return max(1, xxhash.Sum64(tail)), nil
}

// Difference describes both versions, for users: what it was and what it is.
func (v Version) Difference(now Version) (was, is string) {
	layout := "2006-01-02 15:04:05"
	then, later := time.Unix(0, v.Modified), time.Unix(0, now.Modified)
	if v.Modified != now.Modified && then.Truncate(time.Second).Equal(later.Truncate(time.Second)) {
		layout += ".000000000"
	}
	text := func(v Version, modified time.Time) string {
		return fmt.Sprintf("%s bytes, modified %s", humanize.Comma(v.Size), modified.Format(layout))
	}
	was, is = text(v, then), text(now, later)
	if was == is {
		is = "another file of the same size and time"
	}
	return was, is
}
