package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/stage"
)

type joinConfig struct {
	Right    string `b4:"right,required" help:"path of the right inputs, or its end: a file, a folder or a pattern; all others are left"`
	Key      int    `b4:"key,default=1" help:"number of the field of the key in left lines, from 1"`
	RightKey int    `b4:"right_key,default=1" help:"number of the field of the key in right lines, from 1"`
	Sep      string `b4:"sep,default=tab" help:"what is between fields; a CR at the end of a line is of no field"`
	Kind     string `b4:"kind,default=inner" help:"inner: pairs of lines; left: also left lines without a right one; anti: only those"`
}

// Join joins the lines of two inputs by key: the key, the other fields of the left line, and those of the right one. The parts are sorted by key. Right lines of
// one key that do not fit into memory are kept on disk.
func Join() bridgefour.Job {
	return newStaged("join", "join the lines of two inputs by key",
		"--input orders.csv --input customers.csv --set right=customers.csv --set key=2 --set sep=,", newJoin)
}

// join is the program. The key of a pair is that of the line and the side, so that the right lines of a key come before its left ones, which need not be kept.
type join struct {
	joinConfig
	sep   []byte
	lines lineBlocks
	key   []byte
	rest  []byte
	part  partText
	group joinGroup
	files [2]int // of the input, by side, at submit
}

// joinGroup is a key with its right lines.
type joinGroup struct {
	any    bool
	key    []byte // encoded
	text   []byte // of the key
	rights rightLines
}

// The last byte of a pair's key.
const (
	rightSide = 0
	leftSide  = 1
)

func newJoin(cfg joinConfig) (stage.Program, error) {
	sep, err := separator(cfg.Sep)
	if err == nil && sep == nil {
		err = errors.New("invalid setting sep=space: the output needs a separator of its own; name one, such as tab")
	}
	if err == nil {
		err = errors.Join(checkField("key", cfg.Key, 1), checkField("right_key", cfg.RightKey, 1))
	}
	if _, bad := path.Match(cfg.Right, ""); err == nil && bad != nil {
		err = fmt.Errorf("invalid setting right=%q: %w", cfg.Right, bad)
	}
	if kinds := []string{"inner", "left", "anti"}; err == nil && !slices.Contains(kinds, cfg.Kind) {
		err = fmt.Errorf("invalid setting kind=%q: want one of %s", cfg.Kind, strings.Join(kinds, ", "))
	}
	return &join{joinConfig: cfg, sep: sep}, err
}

// CheckInput implements stage.InputChecker.
func (j *join) CheckInput(path string) { j.files[j.side(path)]++ }

// MissingInput implements stage.InputChecker.
func (j *join) MissingInput() error {
	switch {
	case j.files[rightSide] == 0:
		return fmt.Errorf("none of the %d files matches right=%s: there is nothing to join with", j.files[leftSide], j.Right)
	case j.files[leftSide] == 0:
		return fmt.Errorf("all of the %d files match right=%s: no left input remains", j.files[rightSide], j.Right)
	}
	return nil
}

// side is that of a file.
func (j *join) side(path string) byte {
	if isUnder(path, j.Right) {
		return rightSide
	}
	return leftSide
}

// Stages are two.
func (*join) Stages() []stage.Stage { return twoStages("join", stage.ByHash) }

// Run emits the lines of a split by key, or joins those of a partition.
func (j *join) Run(_ context.Context, t *stage.Task) error {
	if t.Stage == 0 {
		return j.split(t)
	}
	j.part.begin(t)
	g := &j.group
	g.any, g.rights.memory, g.rights.temp = false, t.Memory, t.Temp
	err := eachPair(t, j.add)
	if err == nil {
		err = j.part.flush()
	}
	return errors.Join(err, g.rights.close())
}

// split emits the lines of a split.
func (j *join) split(t *stage.Task) error {
	var path string
	var number int
	var side byte
	return j.lines.eachLine(t, func(line []byte) error {
		if number == 0 || path != t.Path {
			path, number, side = t.Path, j.Key, j.side(t.Path)
			if side == rightSide {
				number = j.RightKey
			}
		}
		key, rest, ok := j.cut(line, number)
		if !ok {
			return noField(t.Path, line, number)
		}
		j.key = append(appendOrdered(j.key[:0], key), side)
		return t.EmitBy(j.key[:len(j.key)-1], j.key, rest)
	})
}

// cut separates the key from a line. The rest is that of the line, with a separator before each field.
func (j *join) cut(line []byte, number int) (key, rest []byte, ok bool) {
	line = withoutCR(line) // else it would be inside of the output's lines
	before := 0            // bytes of the fields before the key, with their separators
	for ; number > 1; number-- {
		at := bytes.Index(line[before:], j.sep)
		if at < 0 {
			return nil, nil, false
		}
		before += at + len(j.sep)
	}
	key = line[before:]
	if at := bytes.Index(key, j.sep); at >= 0 {
		key = key[:at]
	}
	rest = line[before+len(key):]
	if before == 0 {
		return key, rest, true
	}
	j.rest = append(append(j.rest[:0], j.sep...), line[:before-len(j.sep)]...)
	j.rest = append(j.rest, rest...)
	return key, j.rest, true
}

// add takes the next pair of a partition.
func (j *join) add(pair stage.Pair) error {
	if len(pair.Key) == 0 {
		return errCut
	}
	g := &j.group
	key, side := pair.Key[:len(pair.Key)-1], pair.Key[len(pair.Key)-1]
	if !g.any || !bytes.Equal(key, g.key) {
		text, err := cutOrdered(g.text[:0], key)
		if err != nil {
			return err
		}
		g.any, g.key, g.text = true, append(g.key[:0], key...), text
		g.rights.begin()
	}
	anti := j.Kind == "anti"
	switch {
	case side == rightSide:
		if g.rights.any = true; anti { // that there is one is all that counts
			return nil
		}
		return g.rights.add(pair.Value)
	case !g.rights.any && j.Kind != "inner":
		return j.row(pair.Value, nil)
	case anti:
		return nil
	}
	return g.rights.each(func(rest []byte) error { return j.row(pair.Value, rest) })
}

// row writes the key, and the rests of a left and a right line.
func (j *join) row(left, right []byte) error {
	j.part.buf = append(append(append(append(j.part.buf, j.group.text...), left...), right...), '\n')
	return j.part.grown()
}

// isUnder reports whether a path, or the path of a folder that contains it, ends as a pattern does.
func isUnder(input, pattern string) bool {
	pattern = strings.TrimSuffix(path.Clean(pattern), "/")
	elements := strings.Count(strings.TrimPrefix(pattern, "/"), "/") + 1
	for ; input != "" && input != "/" && input != "."; input = path.Dir(input) {
		if path.IsAbs(pattern) {
			if ok, _ := path.Match(pattern, input); ok { // checked
				return true
			}
			continue
		}
		parts := strings.Split(input, "/")
		end := strings.Join(parts[max(0, len(parts)-elements):], "/")
		if ok, _ := path.Match(pattern, end); ok { // checked
			return true
		}
	}
	return false
}
