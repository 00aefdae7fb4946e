package jobs

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// rightLines are the right lines of a key, in order. Those that take more memory than the task has are in a file without a name, which each left line reads again: what it
// writes is longer.
type rightLines struct {
	text   []byte // of those in memory, one after the other
	ends   []int  // of each of them in text
	any    bool
	memory int64
	temp   string // folder of the file

	file    *os.File // nil: none was needed yet
	spilled bool     // the file has lines of this key, which come first
	in      *bufio.Reader
	out     *bufio.Writer
	line    []byte
}

// begin removes the lines, for a key. It keeps the memory, and the file.
func (r *rightLines) begin() {
	r.text, r.ends, r.any, r.spilled = r.text[:0], r.ends[:0], false, false
}

// close removes the file.
func (r *rightLines) close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

func (r *rightLines) add(line []byte) error {
	const endBytes = 8
	if int64(len(r.text)+len(line))+endBytes*int64(len(r.ends)+1) > r.memory && len(r.ends) > 0 {
		if err := r.spill(); err != nil {
			return fmt.Errorf("right lines of a key: %w", err)
		}
	}
	r.text = append(r.text, line...)
	r.ends = append(r.ends, len(r.text))
	return nil
}

// spill moves the lines in memory to the end of the file.
func (r *rightLines) spill() error {
	if r.file == nil {
		file, err := os.CreateTemp(r.temp, "join-*")
		if err != nil {
			return err
		}
		r.file = file
		if err := os.Remove(file.Name()); err != nil {
			return err
		}
		r.in, r.out = bufio.NewReaderSize(nil, 64<<10), bufio.NewWriterSize(nil, 64<<10)
	}
	if !r.spilled {
		if err := r.file.Truncate(0); err != nil {
			return err
		}
	}
	if _, err := r.file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	r.out.Reset(r.file)
	var size [binary.MaxVarintLen64]byte
	from := 0
	for _, end := range r.ends { // a bufio.Writer keeps the first error
		_, _ = r.out.Write(binary.AppendUvarint(size[:0], uint64(end-from))) //nolint:gosec // not negative
		_, _ = r.out.Write(r.text[from:end])
		from = end
	}
	r.text, r.ends, r.spilled = r.text[:0], r.ends[:0], true
	return r.out.Flush()
}

// each calls do with each line, which is valid until it returns.
func (r *rightLines) each(do func(line []byte) error) error {
	if r.spilled {
		if err := r.eachSpilled(do); err != nil {
			return err
		}
	}
	from := 0
	for _, end := range r.ends {
		if err := do(r.text[from:end]); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (r *rightLines) eachSpilled(do func(line []byte) error) error {
	if _, err := r.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r.in.Reset(r.file)
	for {
		size, err := binary.ReadUvarint(r.in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if uint64(cap(r.line)) < size {
			r.line = make([]byte, size)
		}
		if _, err := io.ReadFull(r.in, r.line[:size]); err != nil {
			return err
		}
		if err := do(r.line[:size]); err != nil {
			return err
		}
	}
}
