package plan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/state"
)

// pattern is a path whose parts are patterns of doublestar.Match, such as {a,b}*.gz, or ** for any number of folders. Hidden names, and what a
// pattern may match below a folder, are why the parts are matched one by one.
type pattern struct {
	base  blob.Location // the longest prefix without a pattern: all matches are below it
	parts []string      // below base
	deep  bool          // a part is **
}

// partsMax is the maximum number of parts: they are bits of a uint64, plus one.
const partsMax = 63

// alternativesMax bounds the combinations of the alternatives of a part: matching tries all of them.
const alternativesMax = 1024

func isPattern(name string) bool { return strings.ContainsAny(name, `*?[{}\`) }

// fixedPart is the longest prefix of name without a pattern.
func fixedPart(name blob.Location) blob.Location {
	for isPattern(string(name)) && !name.IsRoot() {
		name = name.Dir()
	}
	return name
}

func parsePattern(name blob.Location) (*pattern, error) {
	base := fixedPart(name)
	rest, _ := name.Below(base)
	if err := checkBraces(rest); err != nil {
		return nil, err
	}
	pt := &pattern{base: base}
	for part := range strings.SplitSeq(rest, "/") {
		if n := len(pt.parts); part == "**" && n > 0 && pt.parts[n-1] == "**" {
			continue // redundant
		}
		if !doublestar.ValidatePattern(part) {
			return nil, errors.New(`"[" without "]", "{" and "}" without each other, or "\" at the end`)
		}
		pt.parts = append(pt.parts, part)
		pt.deep = pt.deep || part == "**"
	}
	if len(pt.parts) > partsMax {
		return nil, errors.New("too many parts")
	}
	return pt, nil
}

// match reports whether the pattern matches name, and whether it could match names below it. It scans the parts of name once, with
// the set of possible positions in the pattern, so that no pattern is slow.
func (pt *pattern) match(name blob.Location) (whole, below bool) {
	rest, ok := name.Below(pt.base)
	if !ok || rest == "" {
		return false, false
	}
	places := pt.skip(1)
	for part := range strings.SplitSeq(rest, "/") {
		var next uint64
		for i, p := range pt.parts {
			switch at := uint64(1) << i; {
			case places&at == 0:
			case p == "**" && !isHidden(part):
				next |= at
			case p != "**" && matchPart(p, part):
				next |= at << 1
			}
		}
		if places = pt.skip(next); places == 0 {
			return false, false
		}
	}
	end := uint64(1) << len(pt.parts)
	return places&end != 0, places&(end-1) != 0
}

// keep is the filter of a listing.
func (pt *pattern) keep(name blob.Location, folder bool) bool {
	whole, below := pt.match(name)
	return folder && below || !folder && whole
}

// skip adds the positions behind each **, which may match nothing.
func (pt *pattern) skip(places uint64) uint64 {
	for i, p := range pt.parts {
		if at := uint64(1) << i; p == "**" && places&at != 0 {
			places |= at << 1
		}
	}
	return places
}

func matchPart(p, part string) bool {
	if isHidden(part) && p[0] != part[0] {
		return false
	}
	return doublestar.MatchUnvalidated(p, part)
}

// checkBraces refuses alternatives that are more than a part of a path, and those with too many combinations.
func checkBraces(text string) error {
	combinations, class := 1, false
	var open []int // alternatives of the braces that are open
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '{':
			open = append(open, 1)
		case len(open) == 0:
			if c == '/' {
				combinations = 1
			}
		case c == '/':
			return errors.New(`"/" between "{" and "}": name each alternative as an input of its own`)
		case c == ',':
			open[len(open)-1]++
		case c == '}':
			if combinations *= open[len(open)-1]; combinations > alternativesMax {
				return fmt.Errorf("more than %d combinations of {…} in one part of the path", alternativesMax)
			}
			open = open[:len(open)-1]
		}
	}
	return nil
}

// pattern adds the files that match.
func (l *fileList) pattern(ctx context.Context, field string, store blob.Store, name blob.Location) error {
	p := l.p
	pt, err := parsePattern(name)
	if err != nil {
		p.fail(field, "input %q does not exist, and is not a valid pattern: %v", name, err)
		return nil
	}
	if p.realOutput != "" && p.outputMatches(ctx, store, pt) {
		p.fail(field, "input %q would match the parts of output %q; use another folder", name, p.result.Output)
		return nil
	}
	info, err := store.Stat(ctx, pt.base)
	switch {
	case err == nil && !info.Folder, errors.Is(err, fs.ErrNotExist):
		p.fail(field, "input %q matches no file: there is no folder %s", name, pt.base)
		return nil
	case err != nil:
		p.fail(field, "input %q: %v", name, err)
		return nil
	}
	var folders atomic.Uint64
	before := len(p.errs)
	n, err := l.list(ctx, field, store, pt.base, func(name blob.Location, folder bool) bool {
		if folder {
			if whole, _ := pt.match(name); whole {
				folders.Add(1)
			}
		}
		return pt.keep(name, folder)
	})
	switch matched := folders.Load(); {
	case err != nil || len(p.errs) > before:
	case n == 0 && matched > 0:
		p.fail(field, "input %q matches %s and no file; write %q for what is below", name, state.Counted(matched, "folder"), name+"/**")
	case n == 0:
		p.fail(field, "input %q matches no file (looked in %s); quote the pattern or pass a folder", name, pt.base)
	case matched > 0 && !pt.deep:
		p.warn("input %q also matches %s, and skips what is below; write %q to read it", name, state.Counted(matched, "folder"), name+"/**")
	}
	return err
}

// outputMatches reports whether the pattern would match the job's output.
func (p *planner) outputMatches(ctx context.Context, store blob.Store, pt *pattern) bool {
	resolved := *pt
	resolved.base = store.Resolve(ctx, pt.base)
	whole, _ := resolved.match(p.realOutput.Join(layout.Part(0, 1)))
	if whole {
		return true
	}
	// Existing files in the output folder may be removed by --overwrite.
	return p.outputHere && isBelow(resolved.base, p.realOutput)
}
