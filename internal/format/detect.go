package format

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"

	"github.com/klauspost/compress/flate"
)

// Format is a format as messages name it.
type Format string

// The formats that readers treat differently.
const (
	Text  Format = "text"
	Gzip  Format = "gzip"
	Zstd  Format = "zstd"
	Bzip2 Format = "bzip2"
	UTF16 Format = "UTF-16 text"
	// Binary is any file with a zero byte in its first [PrefixSize] bytes.
	Binary Format = "binary"
)

// PrefixSize is the number of bytes that decide about a format.
const PrefixSize = 64 << 10

// MagicSize is the number of bytes that distinguish the compressed formats from all others, except for BAM from gzip.
const MagicSize = 32

// magic is a string at an offset that identifies a format.
type magic struct {
	offset int
	text   string
	format Format
}

// magics also identify formats that have zero bytes, for messages.
var magics = []magic{ //nolint:gochecknoglobals // a table
	{0, "\x1f\x8b", Gzip},
	{0, "\x28\xb5\x2f\xfd", Zstd},
	{0, "\xfd7zXZ\x00", "xz"},
	{0, "\x04\x22\x4d\x18", "lz4"},
	{0, "LZIP\x01", "lzip"},
	{0, "\x1f\x9d", "compress (.Z)"},
	{0, "7z\xbc\xaf\x27\x1c", "7z"},
	{0, "Rar!\x1a\x07", "rar"},
	{0, "PK\x03\x04", "zip"},
	{0, "PK\x05\x06", "zip"},
	{257, "ustar", "tar"},
	{0, "PAR1", "Parquet"},
	{0, "ARROW1", "Arrow"},
	{0, "\xff\xff\xff\xff", "Arrow stream"},
	{0, "FEA1", "Feather"},
	{0, "\x89HDF\r\n\x1a\n", "HDF5"},
	{0, "SQLite format 3\x00", "SQLite"},
	{0, "BAM\x01", "BAM"},
	{0, "BCF\x02", "BCF"},
	{0, "CRAM\x02", "CRAM"},
	{0, "CRAM\x03", "CRAM"},
	{0, "\x93NUMPY", "NumPy"},
	{0, "Obj\x01", "Avro"},
	{0, "%PDF-", "PDF"},
}

// Detect returns the format of a file that begins with prefix: its first [PrefixSize] bytes, or all that it has.
func Detect(prefix []byte) Format {
	for _, m := range magics {
		if len(prefix) >= m.offset && bytes.HasPrefix(prefix[m.offset:], []byte(m.text)) {
			if m.format == Gzip {
				return insideBlocks(prefix)
			}
			return m.format
		}
	}
	switch {
	case isSkippable(prefix):
		return Zstd
	case isBzip2(prefix):
		return Bzip2
	case bytes.IndexByte(prefix, 0) < 0:
		return Text
	case bytes.HasPrefix(prefix, []byte("\xff\xfe")), bytes.HasPrefix(prefix, []byte("\xfe\xff")):
		return UTF16
	}
	return Binary
}

// Compressed reports whether [Decoder] reads the format.
func (f Format) Compressed() bool { return f == Gzip || f == Zstd || f == Bzip2 }

// NeedsTool reports whether the format is of a compressed text that only other tools read.
func (f Format) NeedsTool() bool {
	return f == "xz" || f == "lz4" || f == "lzip" || f == "compress (.Z)"
}

// NamedCompressed reports whether the name promises a format that [Decoder] reads.
func NamedCompressed(name string) bool {
	for _, suffix := range []string{".gz", ".zst", ".bz2"} {
		if len(name) >= len(suffix) && strings.EqualFold(name[len(name)-len(suffix):], suffix) {
			return true
		}
	}
	return false
}

// isSkippable reports whether prefix begins with a skippable frame, as pzstd writes.
func isSkippable(prefix []byte) bool {
	return len(prefix) >= 4 && binary.LittleEndian.Uint32(prefix)&^0xf == 0x184d2a50
}

// isBzip2 also checks the first block's magic: a text may begin with BZh1.
func isBzip2(prefix []byte) bool {
	const digits, block, end = 3, "\x31\x41\x59\x26\x53\x59", "\x17\x72\x45\x38\x50\x90"
	return bytes.HasPrefix(prefix, []byte("BZh")) && len(prefix) > digits && prefix[digits] >= '1' && prefix[digits] <= '9' &&
		(bytes.HasPrefix(prefix[digits+1:], []byte(block)) || bytes.HasPrefix(prefix[digits+1:], []byte(end)))
}

// insideBlocks distinguishes BAM and BCF, which are written as gzip members of a known length (BGZF), from compressed text. Their tools
// read them as they are.
func insideBlocks(prefix []byte) Format {
	const extra, subfield, header = 4, 12, 18 // RFC 1952; the SAM specification, 4.1
	if len(prefix) < header || prefix[3]&extra == 0 || string(prefix[subfield:subfield+2]) != "BC" {
		return Gzip
	}
	magic := make([]byte, 4)
	if _, err := io.ReadFull(flate.NewReader(bytes.NewReader(prefix[header:])), magic); err != nil {
		return Gzip
	}
	switch string(magic) {
	case "BAM\x01":
		return "BAM"
	case "BCF\x02":
		return "BCF"
	}
	return Gzip
}

// utf8BOM is the byte order mark that some programs write before UTF-8.
const utf8BOM = "\xef\xbb\xbf"

// SkipBOM returns the number of bytes of the byte order mark at the beginning of a UTF-8 text.
func SkipBOM(prefix []byte) int {
	if bytes.HasPrefix(prefix, []byte(utf8BOM)) {
		return len(utf8BOM)
	}
	return 0
}
