package bridgefour

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/stage"
)

// Collect calls f once, in the one task of a last stage, with all pairs in the order of the output that they would be. They can be read once, as far as is needed,
// and need not fit into memory. What f emits is the output of the job instead: a total, a share of the total, a rank.
//
// All pairs pass through one task. So [Combine], [Top] or a [Reduce] before it should make them few. A program that wants the pairs themselves reads the result:
// see [ReadPairs].
func Collect[K, V, A, R any](in Pairs[K, V], f func(t *Task, pairs iter.Seq[KV[K, V]], emit Emit[A, R]) error) Pairs[A, R] {
	byTask := Map(in, func(t *Task, pair KV[K, V], emit Emit[uint64, KV[K, V]]) error {
		emit(t.Index(), pair)
		return nil
	})
	from, _, err := byTask.shuffled(node{name: "collect", partition: stage.ByHash, partitions: 1}, nil)
	c, codecErr := codecOf[KV[K, V]]()
	return Pairs[A, R]{from: from, err: errors.Join(err, codecErr, notNil("Collect", f == nil)), link: func(x *execution, emit Emit[A, R]) func() error {
		pairs := valuesOf[KV[K, V]](x, c)
		return func() error {
			err := f(&x.task, pairs, emit)
			if x.err != nil { // f cannot know of it, and may have another error because of it
				return x.err
			}
			return err
		}
	}}
}

// valuesOf are the values of the pairs of a partition. The first error of reading them ends them, and fails the task.
func valuesOf[T any](x *execution, c *codec) iter.Seq[T] {
	return func(yield func(T) bool) {
		var value T
		for x.err == nil {
			p, err := x.spec.Pairs.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				_, err = c.unvalue(p.Value, unsafe.Pointer(&value), true)
			}
			if err != nil {
				x.fail(err)
			} else if !yield(value) {
				return
			}
		}
	}
}

// ReadPairs reads the result of a job, or one of its parts, as the pairs that the job's building function has returned, in their order:
//
//	result, err := client.Result(ctx, job.ID)
//	…
//	for pair, err := range b4.ReadPairs[string, int64](result) {
//
// The longest line must fit into memory, and no more. Lines tell what they are made of as long as no text but the last one of a pair contains a tab, and none a line end. A line
// that is not such a pair, and an error of result, is the last that is yielded; the error names the line. A []byte is valid until the next pair.
func ReadPairs[K, V any](result io.Reader) iter.Seq2[KV[K, V], error] {
	return func(yield func(KV[K, V], error) bool) {
		var pair, none KV[K, V]
		c, err := codecsOf[K, V]()
		if err != nil {
			yield(none, fmt.Errorf("read pairs: %w", err))
			return
		}
		var lines Scanner
		lines.reset(result, "result")
		lines.bytesMax = math.MaxInt64
		for n := 1; lines.Scan(); n++ {
			rest, err := c.key.untext(lines.Bytes(), unsafe.Pointer(&pair.Key), c.value.empty)
			if err == nil {
				_, err = c.value.untext(rest, unsafe.Pointer(&pair.Value), true)
			}
			if err != nil {
				yield(none, fmt.Errorf("read pairs: line %d: %w", n, err))
				return
			}
			if !yield(pair, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(none, fmt.Errorf("read pairs: %w", err))
		}
	}
}
