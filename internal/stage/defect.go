package stage

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// DefectError is an error of a job's own functions that does not depend on its settings or input.
type DefectError struct{ Err error }

func (d *DefectError) Error() string { return d.Err.Error() }

func (d *DefectError) Unwrap() error { return d.Err }

// Caught calls f, and turns a panic into a *[DefectError]: other jobs of the program do not depend on it.
func Caught(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &DefectError{fmt.Errorf("panic: %v%s", v, panicPlace())}
		}
	}()
	return f()
}

// panicPlace is the line of code that has panicked, as text that follows the message; empty: unknown. It is for deferred functions that have recovered.
func panicPlace() string {
	const depth = 64
	callers := make([]uintptr, depth)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	panics := false
	for {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if panics && !inRuntime && frame.File != "" {
			return fmt.Sprintf(" (%s:%d)", filepath.Base(frame.File), frame.Line)
		}
		if panics = panics || frame.Function == "runtime.gopanic"; !more {
			return ""
		}
	}
}
