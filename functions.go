package bridgefour

import "cmp"

// Number is any number.
type Number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}

// Sum adds two numbers, for [Combine].
func Sum[V Number](a, b V) V { return a + b }

// Min is the smaller one of two values, for [Combine].
func Min[V cmp.Ordered](a, b V) V { return min(a, b) }

// Max is the greater one of two values, for [Combine].
func Max[V cmp.Ordered](a, b V) V { return max(a, b) }

// Any is one of two values, for a [Combine] that leaves distinct keys.
func Any[V any](a, _ V) V { return a }
