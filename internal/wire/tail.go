package wire

import (
	"bytes"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Bounds of a text in a Tail.
const (
	// TailMax is the most text that is kept, in bytes.
	TailMax = 64 << 10
	// TailBytesMax is the most that it takes when it is compressed: zstd adds a few bytes to what it cannot compress.
	TailBytesMax = TailMax + 1<<10
)

// NewTail returns the tail of an attempt, of which log and output are the last parts. Each is cut to TailMax. It is nil if the attempt wrote
// nothing.
func NewTail(log []byte, logBytes uint64, output []byte, outputBytes uint64) (*Tail, error) {
	if logBytes == 0 && outputBytes == 0 {
		return nil, nil //nolint:nilnil // there is nothing to keep
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(TailMax))
	if err != nil {
		return nil, fmt.Errorf("compress the tail of a log: %w", err)
	}
	return &Tail{
		Log: enc.EncodeAll(lastBytes(log), nil), LogBytes: logBytes,
		Output: enc.EncodeAll(lastBytes(output), nil), OutputBytes: outputBytes,
	}, nil
}

func lastBytes(text []byte) []byte { return text[max(0, len(text)-TailMax):] }

// TailText returns a text of a Tail of which all was bytes long. If only its last part is kept, it begins at a line, unless it is the end of one
// line, after a mark of what was cut.
func TailText(compressed []byte, all uint64) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(TailMax), zstd.WithDecoderMaxWindow(TailMax))
	if err != nil {
		return nil, fmt.Errorf("read the tail of a log: %w", err)
	}
	defer dec.Close()
	text, err := dec.DecodeAll(compressed, nil)
	if err != nil {
		return nil, fmt.Errorf("read the tail of a log: %w", err)
	}
	if uint64(len(text)) >= all {
		return text, nil
	}
	if end := bytes.IndexByte(text, '\n'); end >= 0 && end+1 < len(text) {
		text = text[end+1:]
	}
	return append(fmt.Appendf(nil, "… %d bytes cut …\n", all-uint64(len(text))), text...), nil
}

// TailRate limits the failures that carry a tail: a burst, and then one in each interval.
type TailRate struct {
	Burst    int
	Interval time.Duration

	next time.Time // when a steady rate would allow the next one
}

// Take reports whether one more is allowed.
func (r *TailRate) Take(now time.Time) bool {
	if r.next.Sub(now) >= time.Duration(r.Burst)*r.Interval {
		return false
	}
	if r.next.Before(now) {
		r.next = now
	}
	r.next = r.next.Add(r.Interval)
	return true
}
