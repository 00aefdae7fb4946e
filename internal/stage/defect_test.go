package stage_test

import (
	"errors"
	"regexp"
	"testing"

	"github.com/bridgefour/bridgefour/internal/stage"
)

func TestCaught(t *testing.T) {
	var none map[string]int
	for want, f := range map[string]func() error{
		`^panic: boom \(defect_test.go:\d+\)$`:                                                  func() error { panic("boom") },
		`^panic: assignment to entry in nil map \(defect_test.go:\d+\)$`:                        func() error { none["a"] = 1; return nil },
		`^panic: runtime error: index out of range \[3\] with length 0 \(defect_test.go:\d+\)$`: func() error { return []error{}[len("abc")] },
	} {
		err := stage.Caught(f)
		if _, ok := errors.AsType[*stage.DefectError](err); !ok || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("Caught() = %v, want a defect that matches %s", err, want)
		}
	}
	plain := errors.New("plain")
	if err := stage.Caught(func() error { return plain }); err != plain { //nolint:errorlint // the same
		t.Errorf("Caught() = %v, want %v", err, plain)
	}
}
