package jobs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
	"github.com/bridgefour/bridgefour/jobs"
)

// TestCountForms counts the same values in lines of several forms, some of which are scanned 8 bytes at a time.
func TestCountForms(t *testing.T) {
	r := newRandom(t)
	keys := make([]string, 3000)
	for i := range keys {
		keys[i] = strings.Repeat("k\x00é;"[:1+r.IntN(3)], r.IntN(9)) + fmt.Sprint(i)
	}
	value := func() string {
		switch r.IntN(12) {
		case 0:
			return fmt.Sprint(r.IntN(2000) - 1000)
		case 1:
			return fmt.Sprintf("%.9f", r.Float64()-0.5)
		case 2:
			return fmt.Sprint(r.Int64N(1e18) - 5e17)
		case 3:
			return fmt.Sprintf("+%d.", r.IntN(100))
		case 4:
			return []string{"-0", "0.0", ".5", "-.5", "00000000000012.50"}[r.IntN(5)]
		}
		return fmt.Sprintf("%.1f", r.NormFloat64()*50)
	}
	for name, distribution := range map[string]func() int{
		"few": func() int { return r.IntN(20) }, "many": func() int { return r.IntN(len(keys)) }, "equal": func() int { return 7 },
	} {
		var files, wide, spaced, colons []string
		for range 3 {
			var b, w, s, m strings.Builder
			for range 4000 {
				k, v := keys[distribution()], value()
				fmt.Fprintf(&b, "%s;%s\n", k, v)
				fmt.Fprintf(&w, "%s|x|%s|more|\n", v, k)
				fmt.Fprintf(&s, "  %s \t%s\n", v, k)
				fmt.Fprintf(&m, "%s::%s\n", k, v)
			}
			files, wide = append(files, b.String()), append(wide, w.String())
			spaced, colons = append(spaced, s.String()), append(colons, m.String())
		}
		var crlf []string
		for _, text := range files {
			crlf = append(crlf, strings.ReplaceAll(text, "\n", "\r\n"))
		}
		want := countOf(files)
		for _, stats := range []string{"count,min,mean,max,sum", "count,min,mean,max,sum,distinct"} {
			for _, form := range []struct {
				files    []string
				settings bridgefour.Settings
			}{
				{files, bridgefour.Settings{"sep": ";", "value": "2"}},
				{crlf, bridgefour.Settings{"sep": ";", "value": "2"}},
				{wide, bridgefour.Settings{"sep": "|", "key": "3", "value": "1"}},
				{spaced, bridgefour.Settings{"sep": "space", "key": "2", "value": "1"}},
				{colons, bridgefour.Settings{"sep": "::", "value": "2"}},
			} {
				form.settings["stats"] = stats
				got := run(t, jobs.Count(), bridgefourtest.Input{Files: form.files, Settings: form.settings})
				expected := want
				if !strings.HasSuffix(stats, "distinct") {
					expected = withoutLastColumn(want)
				}
				if got.Text() != expected {
					t.Errorf("%s: count %v: %s", name, form.settings, difference(got.Text(), expected))
				}
			}
		}
	}
}

func withoutLastColumn(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(line[:strings.LastIndexByte(line, '\t')] + "\n")
	}
	return b.String()
}

// TestCountFlushes has more keys than fit into the memory of a task.
func TestCountFlushes(t *testing.T) {
	var text, want strings.Builder
	const keys = 50_000
	for i := range 2 * keys {
		fmt.Fprintf(&text, "%06d;%d.5\n", i%keys, i/keys)
	}
	for i := range keys {
		fmt.Fprintf(&want, "%06d\t0.5\t1\t1.5\n", i)
	}
	got := run(t, jobs.Count(), bridgefourtest.Input{Files: []string{text.String()}, Settings: settings("sep=; value=2")})
	if got.Text() != want.String() {
		t.Error(difference(got.Text(), want.String()))
	}
}

func TestCountBadLines(t *testing.T) {
	for text, want := range map[string]string{
		"a;1\nb":                              `input-0: line "b" has no field 2`,
		"a;1\n\nb;2\n":                        `input-0: line "" has no field 2`,
		"a;1\nb;\n":                           `input-0: field 2 of line "b;": "" is not a decimal number`,
		"a;1x":                                `input-0: field 2 of line "a;1x": "1x" is not a decimal number`,
		"a;1.2.3;4\n":                         `input-0: field 2 of line "a;1.2.3;4": "1.2.3" is not a decimal number`,
		"a;-\n":                               `input-0: field 2 of line "a;-": "-" is not a decimal number`,
		"a;" + strings.Repeat("9", 19) + "\n": `input-0: field 2 of line "a;9999999999999999999": "9999999999999999999" has more than 18 digits`,
		strings.Repeat("x", 300<<10) + ";1\na;2\n": `input-0: a line before byte`,
	} {
		_, err := bridgefourtest.Run(t.Context(), jobs.Count(), bridgefourtest.Input{Files: []string{text}, Settings: settings("sep=; value=2 record_max=200KiB")})
		if want = "map/0: BAD_INPUT: " + want; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("count of %.50q: %v, want %s", text, err, want)
		}
	}
}

func TestDistinctIsInOrder(t *testing.T) {
	for name, files := range texts() {
		want := coreutils(t, files, "sort", "-u")
		if got := run(t, jobs.Distinct(), bridgefourtest.Input{Files: files}); got.Text() != want {
			t.Errorf("%s: distinct differs from sort -u: %s", name, difference(got.Text(), want))
		}
	}
}
