package bridgefour

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

const writerBufferSize = 64 << 10

// Writer is a buffered writer for a task's part or the result of a Collect. After a failed write all others fail, and in the end the
// task, so that callers may ignore errors.
type Writer struct {
	w       io.Writer
	buf     []byte
	size    int64 // bytes flushed
	records uint64
	sizeMax int64 // 0: no limit
	err     error
}

// reset reuses the buffer.
func (o *Writer) reset(w io.Writer, sizeMax int64) {
	*o = Writer{w: w, buf: o.buf[:0], sizeMax: sizeMax}
}

// Write appends p.
func (o *Writer) Write(p []byte) (int, error) { return write(o, p) }

// WriteString appends s.
func (o *Writer) WriteString(s string) (int, error) { return write(o, s) }

func write[T []byte | string](o *Writer, p T) (int, error) {
	if len(p) <= cap(o.buf)-len(o.buf) && o.err == nil {
		o.buf = append(o.buf, p...)
		return len(p), nil
	}
	for rest := p; len(rest) > 0; {
		room := o.room()
		if o.err != nil {
			return len(p) - len(rest), o.err
		}
		n := min(room, len(rest))
		o.buf = append(o.buf, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

// WriteByte appends c.
func (o *Writer) WriteByte(c byte) error {
	if o.room(); o.err != nil {
		return o.err
	}
	o.buf = append(o.buf, c)
	return nil
}

// Emit appends the line KEY<TAB>VALUE. A newline in the value starts another line; a tab in the key moves the boundary between key
// and value.
func (o *Writer) Emit(key, value []byte) error {
	if _, err := o.Write(key); err != nil {
		return err
	}
	if err := o.WriteByte('\t'); err != nil {
		return err
	}
	if _, err := o.Write(value); err != nil {
		return err
	}
	return o.WriteByte('\n')
}

// EmitInt appends the line KEY<TAB>VALUE.
func (o *Writer) EmitInt(key []byte, value int64) error {
	const digitsMax = 20
	if cap(o.buf)-len(o.buf) < len(key)+digitsMax+2 {
		return o.Emit(key, strconv.AppendInt(nil, value, 10))
	}
	if o.err != nil {
		return o.err
	}
	o.buf = append(append(o.buf, key...), '\t')
	o.buf = append(strconv.AppendInt(o.buf, value, 10), '\n')
	return nil
}

// Size is the number of bytes written so far.
func (o *Writer) Size() int64 { return o.size + int64(len(o.buf)) }

// room returns the free space of the buffer, at least one byte unless o.err is set.
func (o *Writer) room() int {
	if o.buf == nil {
		o.buf = make([]byte, 0, writerBufferSize)
	}
	if len(o.buf) == cap(o.buf) {
		o.flush()
	}
	return cap(o.buf) - len(o.buf)
}

// errNoPart is the error of writing in a stage that another one follows.
var errNoPart = errors.New("only the last stage of a job writes a part, and a typed one with emit: do not write to Task.Out")

func (o *Writer) flush() {
	if o.err != nil || len(o.buf) == 0 {
		return
	}
	if o.sizeMax > 0 && o.Size() > o.sizeMax {
		o.err = ErrResultTooLarge
		return
	}
	if o.w == nil {
		o.err = errNoPart
		return
	}
	n, err := o.w.Write(o.buf)
	if err == nil && n < len(o.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		o.err = err
		return
	}
	o.records += uint64(bytes.Count(o.buf, []byte{'\n'}))
	o.size += int64(n)
	o.buf = o.buf[:0]
}

// finish flushes the buffer. An incomplete last line counts as a record too.
func (o *Writer) finish() (records uint64, err error) {
	open := len(o.buf) > 0 && o.buf[len(o.buf)-1] != '\n'
	o.flush()
	if open {
		o.records++
	}
	return o.records, o.err
}
