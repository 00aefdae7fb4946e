package jobs

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/bridgefour/bridgefour"
)

// separator parses a setting that names what is between fields. Empty: white space.
func separator(text string) (sep []byte, err error) {
	switch text {
	case "", "space":
		return nil, nil
	case `\t`, "tab":
		return []byte{'\t'}, nil
	}
	if strings.ContainsAny(text, "\n") {
		return nil, fmt.Errorf("invalid setting sep=%q: a record ends at a line end", text)
	}
	return []byte(text), nil
}

// field is the field of a line with a number from 1. It is false if the line has fewer.
func field(line []byte, number int, sep []byte) ([]byte, bool) {
	if len(sep) == 0 {
		for f := range bytes.FieldsSeq(line) {
			if number--; number == 0 {
				return f, true
			}
		}
		return nil, false
	}
	for ; number > 1; number-- {
		at := bytes.Index(line, sep)
		if at < 0 {
			return nil, false
		}
		line = line[at+len(sep):]
	}
	if at := bytes.Index(line, sep); at >= 0 {
		line = line[:at]
	}
	return line, true
}

// withoutCR is a line without the carriage return of a file with CRLF line ends, which is not of its last field.
func withoutCR(line []byte) []byte { return bytes.TrimSuffix(line, []byte{'\r'}) }

// hasCR reports whether there is one to leave out.
func hasCR(line []byte) bool { return len(line) > 0 && line[len(line)-1] == '\r' }

// noField is the error of a line that lacks a field. Its end may be left out of the message.
func noField(path string, line []byte, number int) error {
	const shown = 100
	if len(line) > shown {
		line = append(line[:shown:shown], "…"...)
	}
	return bridgefour.BadInput(fmt.Errorf("%s: line %q has no field %d", path, line, number))
}

// checkSize refuses results that would be empty.
func checkSize(setting string, n int) error {
	if n < 1 {
		return fmt.Errorf("invalid setting %s=%d: want at least 1", setting, n)
	}
	return nil
}

// checkField refuses the numbers of fields that no line has.
func checkField(setting string, number, least int) error {
	if number < least {
		return fmt.Errorf("invalid setting %s=%d: fields are numbered from 1", setting, number)
	}
	return nil
}
