package record

import (
	"bytes"
	"fmt"
)

// fastqCheck checks that a file consists of records of four lines, on which fastqHeader relies. Empty lines between records are allowed.
type fastqCheck struct {
	at       int64 // offset of the current line
	line     int   // of the record, from 0
	length   int64 // of the current line so far
	first    byte  // of the current line, if length > 0
	last     byte
	sequence int64 // length of the second line
}

// add checks the next bytes.
func (c *fastqCheck) add(p []byte) error {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		if len(part) > 0 {
			if c.length == 0 {
				c.first = part[0]
			}
			c.length += int64(len(part))
			c.last = part[len(part)-1]
		}
		if end < 0 {
			return nil
		}
		if err := c.endLine(); err != nil {
			return err
		}
		p = p[end+1:]
	}
	return nil
}

func (c *fastqCheck) endLine() error {
	text, bytes := c.length, c.length+1
	if text > 0 && c.last == '\r' {
		text--
	}
	switch {
	case c.line == 0 && text == 0:
		c.line = -1
	case c.line == 0 && c.first != '@':
		return c.fail("does not begin with @")
	case c.line == 1:
		c.sequence = text
	case c.line == 2 && (text == 0 || c.first != '+'):
		return c.fail("does not begin with +")
	case c.line == 3 && text != c.sequence:
		return c.fail(fmt.Sprintf("has %d qualities for a sequence of %d", text, c.sequence))
	}
	c.at += bytes
	c.line = (c.line + 1) % 4
	c.length, c.first, c.last = 0, 0, 0
	return nil
}

// end checks that the records end here. eof: the last line may lack its line end.
func (c *fastqCheck) end(eof bool) error {
	if eof && (c.length > 0 || c.line == 3) {
		if err := c.endLine(); err != nil {
			return err
		}
	}
	if c.line != 0 || c.length != 0 {
		return c.fail("is where the record is cut")
	}
	return nil
}

func (c *fastqCheck) fail(what string) error {
	return fmt.Errorf("FASTQ with four lines a record is wanted, but line %d of the record, at byte %d, %s; "+
		"use --split none for records of other forms", c.line+1, c.at, what)
}
