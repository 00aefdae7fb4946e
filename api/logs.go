package api

import (
	"fmt"
	"unicode/utf8"
)

// Readable returns the record with its text as it is.
func (r *LogRecord) Readable() LogText {
	if utf8.Valid(r.Text) {
		return LogText{LogRecord: *r, Text: string(r.Text)}
	}
	return LogText{LogRecord: *r, Base64: r.Text}
}

// Label names a task, and the attempt if it is not the one that has won.
func (r *LogRecord) Label() string {
	switch {
	case r.Output:
		return fmt.Sprintf("%s#%d stdout", r.Task, r.Attempt)
	case r.Kept:
		return fmt.Sprintf("%s#%d kept", r.Task, r.Attempt)
	case !r.Winner && r.Attempt > 0:
		return fmt.Sprintf("%s#%d", r.Task, r.Attempt)
	}
	return r.Task
}
