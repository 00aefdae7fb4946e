package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour"
)

// Grep writes the lines that match a pattern, in order. With count it writes INPUT<TAB>LINES instead, the number of lines, for each
// input; the result adds the splits of an input.
//
// Settings: pattern, a regular expression (RE2, so flags such as (?i) are possible), is required. ignore_case, invert and count:
// true or false, default false.
type Grep struct{}

// Name is grep.
func (Grep) Name() string { return "grep" }

// Describe lists the settings.
func (Grep) Describe() bridgefour.Description {
	return bridgefour.Description{
		Summary: "write the lines that match a pattern", Example: "--input 'logs/*.gz' --set pattern='ERROR|FATAL' --set count=true",
		Divisible: true, Records: lineKinds(),
		Settings: []bridgefour.Setting{
			{Key: "pattern", Usage: "regular expression (RE2)", Required: true},
			{Key: "ignore_case", Usage: "ignore case", Type: "bool", Default: "false"},
			{Key: "invert", Usage: "the lines that do not match", Type: "bool", Default: "false"},
			{Key: "count", Usage: "the number of lines instead, of each input", Type: "bool", Default: "false"},
		},
	}
}

// CheckSettings refuses an invalid pattern.
func (Grep) CheckSettings(settings bridgefour.Settings) error {
	_, err := matcher(settings)
	_, countErr := settings.Bool("count", false)
	return errors.Join(err, countErr)
}

// Map writes or counts the lines of a split.
func (Grep) Map(_ context.Context, t *bridgefour.Task) error {
	match, err := matcher(t.Settings())
	if err != nil {
		return err
	}
	count, err := t.Settings().Bool("count", false)
	if err != nil {
		return err
	}
	out, records := t.Out(), t.Records()
	var lines int64
	for records.Scan() {
		line := records.Bytes()
		if !match(line) {
			continue
		}
		lines++
		if count {
			continue
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
		if err := out.WriteByte('\n'); err != nil {
			return err
		}
	}
	if err := records.Err(); err != nil {
		return err
	}
	if !count {
		return nil
	}
	input := t.Input()
	if input == "" {
		input = string(t.Item())
	}
	if strings.ContainsRune(input, '\n') {
		input = strconv.Quote(input) // one line each, even if names contain newlines
	}
	return out.EmitInt([]byte(input), lines)
}

// Collect adds the counts. Without count, the parts are the result.
func (Grep) Collect(_ context.Context, c *bridgefour.Collection) error {
	count, err := c.Settings().Bool("count", false)
	if err != nil {
		return err
	}
	if !count {
		return bridgefour.ErrPartsAreResult
	}
	counts := make(map[string]int64)
	var inputs []string
	for part, err := range c.Parts() {
		if err != nil {
			return err
		}
		records := part.Records()
		for records.Scan() {
			input, lines, err := keyCount(records.Bytes())
			if err != nil {
				return fmt.Errorf("part %d: %w", part.Index(), err)
			}
			if _, known := counts[string(input)]; !known {
				inputs = append(inputs, string(input))
			}
			counts[string(input)] += lines
		}
		if err := records.Err(); err != nil {
			return err
		}
	}
	slices.Sort(inputs)
	for _, input := range inputs {
		if err := c.Out().EmitInt([]byte(input), counts[input]); err != nil {
			return err
		}
	}
	return nil
}

// matcher returns the test for a line.
func matcher(settings bridgefour.Settings) (func(line []byte) bool, error) {
	pattern := settings.String("pattern", "")
	if pattern == "" {
		return nil, bridgefour.BadInput(errors.New("setting pattern missing: use --set pattern=REGEXP"))
	}
	ignoreCase, err := settings.Bool("ignore_case", false)
	if err != nil {
		return nil, err
	}
	invert, err := settings.Bool("invert", false)
	if err != nil {
		return nil, err
	}
	if ignoreCase {
		pattern = "(?i)" + pattern
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, bridgefour.BadInput(fmt.Errorf("invalid setting pattern=%q: want a regular expression (RE2): %w",
			settings.String("pattern", ""), err))
	}
	match := re.Match
	if literal, whole := re.LiteralPrefix(); whole {
		wanted := []byte(literal)
		match = func(line []byte) bool { return bytes.Contains(line, wanted) }
	}
	if invert {
		return func(line []byte) bool { return !match(line) }, nil
	}
	return match, nil
}

// keyCount parses a KEY<TAB>COUNT line; the key may contain tabs.
func keyCount(line []byte) (key []byte, count int64, err error) {
	const digitsMax = 19 // and the tab
	for i, unit := len(line)-1, int64(1); i >= max(0, len(line)-digitsMax); i, unit = i-1, unit*10 {
		switch b := line[i]; {
		case b >= '0' && b <= '9':
			count += int64(b-'0') * unit
			continue
		case b == '\t' && i < len(line)-1:
			return line[:i], count, nil
		}
		break
	}
	return nil, 0, fmt.Errorf("invalid line %q: want KEY<TAB>COUNT", line)
}
