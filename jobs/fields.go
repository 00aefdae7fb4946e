package jobs

import (
	"bytes"
	"fmt"
	"strings"
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

// checkField refuses the numbers of fields that no line has.
func checkField(setting string, number, least int) error {
	if number < least {
		return fmt.Errorf("invalid setting %s=%d: fields are numbered from 1", setting, number)
	}
	return nil
}
