package jobs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
	"github.com/bridgefour/bridgefour/jobs"
)

// coreutils runs a tool of the GNU coreutils in the C locale on texts, one after the other, each of which ends its last line.
func coreutils(t *testing.T, texts []string, name string, args ...string) string {
	t.Helper()
	if version, err := exec.CommandContext(t.Context(), name, "--version").Output(); err != nil || !bytes.Contains(version, []byte("GNU")) {
		t.Skipf("no %s of the GNU coreutils to compare with", name)
	}
	var all strings.Builder
	for _, text := range texts {
		if all.WriteString(text); text != "" && !strings.HasSuffix(text, "\n") {
			all.WriteByte('\n')
		}
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stdin = strings.NewReader(all.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return string(out)
}

// texts are inputs of several files by what is special about them.
func texts() map[string][]string {
	r := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(r, 1.1, 1, 1<<20)
	generate := func(files, lines int, line func(b []byte) []byte) (list []string) {
		for range files {
			var text []byte
			for range lines {
				text = append(line(text), '\n')
			}
			list = append(list, string(text))
		}
		return list
	}
	numbers := []string{
		"0", "-0", "00012", "12", "12.0", "12.50", "-12.5", "-12.49", ".5", "-.5", "x", "", "  7", "\t7.0", "7x", "1e9", "-", "-x", "1.2.3", "100", "1000", "10",
		strings.Repeat("9", 99), strings.Repeat("9", 100), "1" + strings.Repeat("0", 150), "-1" + strings.Repeat("0", 150), "0." + strings.Repeat("0", 80) + "1", "1,5",
	}
	return map[string][]string{
		"empty":    {""},
		"none":     {"", ""},
		"one":      {"one"},
		"blank":    {"\n\n", "\n"},
		"equal":    generate(3, 200, func(b []byte) []byte { return append(b, "same\t1\tx"...) }),
		"uniform":  generate(4, 500, func(b []byte) []byte { return fmt.Appendf(b, "%x\t%d\tz", r.Uint32(), r.IntN(100)-50) }),
		"zipf":     generate(4, 500, func(b []byte) []byte { return fmt.Appendf(b, "%d\tk%d\t%d", zipf.Uint64(), zipf.Uint64(), r.IntN(3)) }),
		"prefixes": generate(2, 300, func(b []byte) []byte { return append(b, strings.Repeat("a", r.IntN(40))...) }),
		"numbers": generate(2, 400, func(b []byte) []byte {
			return fmt.Appendf(b, "%s\t%s", numbers[r.IntN(len(numbers))], numbers[r.IntN(len(numbers))])
		}),
		"bytes": generate(2, 500, func(b []byte) []byte {
			for range r.IntN(8) {
				b = append(b, "\x00\x01\t\t\xff\xfe a"[r.IntN(8)])
			}
			return b
		}),
		"long": {strings.Repeat("x", 700_000) + "\tb\n" + strings.Repeat("x", 700_000) + "\ta\nshort\n", strings.Repeat("w", 300_000)},
	}
}

func TestSort(t *testing.T) {
	for name, files := range texts() {
		for _, test := range []struct {
			settings string
			args     string
		}{
			{"", ""},
			{"reverse=true", "-r"},
			{"unique=true", "-u"},
			{"stable=true", "-s"},
			{"reverse=true unique=true", "-r -u"},
			{"numeric=true", "-n"},
			{"numeric=true reverse=true", "-n -r"},
			{"numeric=true stable=true", "-n -s"},
			{"numeric=true unique=true", "-n -u"},
			{"numeric=true reverse=true unique=true", "-n -r -u"},
			{"numeric=true reverse=true stable=true", "-n -r -s"},
			{"field=2", "-k2,2"},
			{"field=2 reverse=true", "-k2,2 -r"},
			{"field=2 stable=true", "-k2,2 -s"},
			{"field=2 unique=true", "-k2,2 -u"},
			{"field=2 reverse=true stable=true", "-k2,2 -r -s"},
			{"field=2 numeric=true", "-k2,2 -n"},
			{"field=2 numeric=true reverse=true", "-k2,2 -n -r"},
			{"field=2 numeric=true unique=true", "-k2,2 -n -u"},
			{"field=1 sep=a reverse=true", "-t a -k1,1 -r"},
		} {
			want := coreutils(t, files, "sort", sortArgs(test.args)...)
			got := run(t, jobs.Sort(), bridgefourtest.Input{Files: files, Settings: settings(test.settings)})
			if got.Text() != want {
				t.Errorf("%s: sort %s differs from sort %s: %s", name, test.settings, test.args, difference(got.Text(), want))
			}
		}
	}
}

// sortArgs are arguments of sort, separated by spaces; without another separator of fields, it is a tab.
func sortArgs(text string) []string {
	if strings.HasPrefix(text, "-t") {
		return strings.Fields(text)
	}
	return append([]string{"-t", "\t"}, strings.Fields(text)...)
}

// settings are separated by spaces.
func settings(text string) bridgefour.Settings {
	set := bridgefour.Settings{}
	for s := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(s, "=")
		set[key] = value
	}
	return set
}

// difference shows the first lines in which two texts differ.
func difference(got, want string) string {
	g, w := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is %.100q, want %.100q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

func TestSortSettings(t *testing.T) {
	for set, want := range map[string]string{
		"field=-1":             "job sort: invalid setting field=-1: fields are numbered from 1",
		"fields=1":             `unknown setting "fields"`,
		"numeric=1e reverse=x": `invalid setting numeric="1e": want true or false`,
	} {
		_, err := bridgefourtest.Run(t.Context(), jobs.Sort(), bridgefourtest.Input{Files: []string{""}, Settings: settings(set)})
		if err == nil || !strings.HasPrefix(err.Error(), want) || !bridgefour.IsBadInput(err) {
			t.Errorf("sort %s: %v, want %s", set, err, want)
		}
	}
}

func TestSortLongLine(t *testing.T) {
	for _, size := range []int{1 << 10, 1 << 20} {
		_, err := bridgefourtest.Run(t.Context(), jobs.Sort(), bridgefourtest.Input{Files: []string{strings.Repeat("x", size)}, Settings: settings("record_max=1000")})
		if want := "map/0: BAD_INPUT: input-0: a line before byte"; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "exceeds 1000 bytes") {
			t.Errorf("sort of a line of %d bytes: %v, want %s", size, err, want)
		}
	}
}
