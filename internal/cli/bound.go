package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/bytesize"
)

// bound is a flag for a bound, or none, which is 0.
type bound[T uint32 | uint64] struct {
	to    *T
	kind  string
	parse func(text string) (T, error)
	text  func(T) string
}

// Set implements pflag.Value.
func (b bound[T]) Set(text string) (err error) {
	var v T
	if text != "none" {
		v, err = b.parse(text)
	}
	if err == nil {
		*b.to = v
	}
	return err
}

// String implements pflag.Value.
func (b bound[T]) String() string {
	if *b.to == 0 {
		return "none"
	}
	return b.text(*b.to)
}

// Type implements pflag.Value.
func (b bound[T]) Type() string { return b.kind }

func countBound(to *uint32) bound[uint32] {
	return bound[uint32]{to, "number", func(text string) (uint32, error) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || n == 0 {
			return 0, errors.New("want a number from 1, or none")
		}
		return uint32(n), nil
	}, func(n uint32) string { return strconv.Itoa(int(n)) }}
}

func sizeBound(to *uint64) bound[uint64] { return bound[uint64]{to, "size", bytesize.Parse, bytesText} }

const secondsOfDay = 24 * 60 * 60

// ageBound is a time in seconds.
func ageBound(to *uint64) bound[uint64] {
	return bound[uint64]{to, "time", func(text string) (uint64, error) {
		if days, ok := strings.CutSuffix(text, "d"); ok {
			if n, err := strconv.ParseUint(days, 10, 32); err == nil && n > 0 {
				return n * secondsOfDay, nil
			}
		} else if d, err := time.ParseDuration(text); err == nil && d >= time.Second {
			return uint64(d / time.Second), nil //nolint:gosec // positive
		}
		return 0, errors.New("want a time of a second or more, as 12h or 30d, or none")
	}, func(seconds uint64) string {
		if seconds%secondsOfDay == 0 {
			return fmt.Sprintf("%dd", seconds/secondsOfDay)
		}
		return durationText(time.Duration(seconds) * time.Second) //nolint:gosec // bounded by the cluster
	}}
}
