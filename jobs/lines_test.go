package jobs_test

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
	"github.com/bridgefour/bridgefour/jobs"
)

// newRandom returns a generator whose seed is in the test's output.
func newRandom(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// inputs are files of lines: of numbers, of words of several distributions, of bytes that are hard to keep apart.
func inputs(r *rand.Rand) map[string][]string {
	zipf := rand.NewZipf(r, 1.3, 1, 1000)
	kinds := map[string]func() string{
		"numbers": func() string {
			return []string{"", " ", "x", "-", "0", "-0", "007", "1e3", "+5", ".5", "-.5", "3."}[r.IntN(12)] +
				[]string{fmt.Sprint(r.IntN(200) - 100), fmt.Sprintf("%.3f", r.NormFloat64()), "", strings.Repeat("9", r.IntN(30))}[r.IntN(4)]
		},
		"uniform": func() string { return fmt.Sprintf("key%d\t%d", r.IntN(500), r.IntN(1000)) },
		"zipf":    func() string { return fmt.Sprintf("%d\t%d", zipf.Uint64(), r.IntN(3)) },
		"equal":   func() string { return "all equal\t1" },
		"bytes": func() string {
			line := make([]byte, r.IntN(5))
			for i := range line {
				line[i] = []byte{0, 1, '\t', 'a', 'b', 0xff, ' '}[r.IntN(7)]
			}
			return string(line)
		},
	}
	all := map[string][]string{"empty": {"", ""}, "one": {"line\n"}, "none": nil}
	for kind, line := range kinds {
		for range 3 {
			var b strings.Builder
			for range 400 {
				b.WriteString(line() + "\n")
			}
			all[kind] = append(all[kind], b.String())
		}
	}
	return all
}

// command is what a command of the coreutils makes of a text.
func command(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Env, c.Stdin = append(os.Environ(), "LC_ALL=C"), strings.NewReader(stdin)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, stderr.String())
	}
	return string(out)
}

func TestDistinctIsThatOfCoreutils(t *testing.T) {
	for kind, files := range inputs(newRandom(t)) {
		got := run(t, jobs.Distinct(), bridgefourtest.Input{Files: files, Partitions: 1})
		if want := command(t, strings.Join(files, ""), "sort", "-u"); got.Text() != want {
			t.Errorf("%s: distinct = %q, want %q", kind, got.Text(), want)
		}
		rows := strings.Join(slices.DeleteFunc(slices.Collect(strings.Lines(strings.Join(files, ""))), func(line string) bool { return !strings.Contains(line, "\t") }), "")
		got = run(t, jobs.Distinct(), bridgefourtest.Input{Files: []string{rows}, Settings: bridgefour.Settings{"field": "2"}})
		want := command(t, command(t, rows, "cut", "-f2"), "sort", "-u")
		if sorted := command(t, got.Text(), "sort"); sorted != want {
			t.Errorf("%s: distinct fields = %q, want %q", kind, sorted, want)
		}
	}
}

func TestTop(t *testing.T) {
	for kind, files := range inputs(newRandom(t)) {
		counts := map[string]int{}
		for line := range strings.Lines(strings.Join(files, "")) {
			counts[strings.TrimSuffix(line, "\n")]++
		}
		order := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
			return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
		})
		for _, n := range []int{1, 10, 10_000} {
			var want strings.Builder
			for _, line := range order[:min(n, len(order))] {
				fmt.Fprintf(&want, "%s\t%d\n", line, counts[line])
			}
			got := run(t, jobs.Top(), bridgefourtest.Input{Files: files, Settings: bridgefour.Settings{"n": fmt.Sprint(n)}})
			if got.Text() != want.String() {
				t.Errorf("%s: top %d = %q, want %q", kind, n, got.Text(), want.String())
			}
		}
	}
}

// countOf is the naive count of KEY<TAB>VALUE lines.
func countOf(files []string) string {
	type sums struct {
		n             int64
		min, max, sum *big.Rat
		values        map[string]bool
	}
	byKey := map[string]*sums{}
	for line := range strings.Lines(strings.Join(files, "")) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ";")
		v, _ := new(big.Rat).SetString(value)
		s := byKey[key]
		if s == nil {
			s = &sums{min: v, max: v, sum: new(big.Rat), values: map[string]bool{}}
			byKey[key] = s
		}
		s.n++
		s.sum.Add(s.sum, v)
		s.values[value] = true
		if v.Cmp(s.min) < 0 {
			s.min = v
		}
		if v.Cmp(s.max) > 0 {
			s.max = v
		}
	}
	var b strings.Builder
	text := func(v *big.Rat) string {
		s := strings.TrimRight(strings.TrimRight(v.FloatString(9), "0"), ".")
		if s == "-0" {
			return "0"
		}
		return s
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		s := byKey[key]
		mean := new(big.Rat).Quo(s.sum, new(big.Rat).SetInt64(s.n))
		fmt.Fprintf(&b, "%s\t%d\t%s\t%s\t%s\t%s\t%d\n", key, s.n, text(s.min), text(mean), text(s.max), text(s.sum), len(s.values))
	}
	return b.String()
}

func TestCount(t *testing.T) {
	r := newRandom(t)
	var files []string
	for range 4 {
		var b strings.Builder
		for range 1000 {
			value := fmt.Sprintf("%.1f", r.NormFloat64()*50)
			switch r.IntN(20) {
			case 0:
				value = fmt.Sprint(r.Int64N(1e18) - 5e17)
			case 1:
				value = fmt.Sprintf("%.9f", r.Float64()-0.5)
			}
			fmt.Fprintf(&b, "key %d;%s\n", r.IntN(50), value)
		}
		files = append(files, b.String())
	}
	settings := bridgefour.Settings{"sep": ";", "value": "2", "stats": "count,min,mean,max,sum,distinct"}
	got := run(t, jobs.Count(), bridgefourtest.Input{Files: files, Settings: settings})
	if want := countOf(files); got.Text() != want {
		t.Errorf("count = %q, want %q", got.Text(), want)
	}
	got = run(t, jobs.Count(), bridgefourtest.Input{Files: files, Settings: bridgefour.Settings{"key": "0"}})
	if want := "4000\n"; got.Text() != want {
		t.Errorf("count of all = %q, want %q", got.Text(), want)
	}
}

func TestJobErrors(t *testing.T) {
	for _, test := range []struct {
		job      bridgefour.Job
		settings bridgefour.Settings
		want     string
	}{
		{jobs.Count(), bridgefour.Settings{"value": "2"}, `map/0: BAD_INPUT: input-0: line "a b" has no field 2`},
		{jobs.Count(), bridgefour.Settings{"value": "2", "sep": "space"}, `map/0: BAD_INPUT: input-0: field 2 of line "a b": "b" is not a decimal number`},
		{jobs.Count(), bridgefour.Settings{"stats": "sum"}, `job count: invalid setting stats="sum": sum is of values: give the number of their field (--set value=N)`},
		{jobs.Count(), bridgefour.Settings{"stats": "median", "value": "1"}, `job count: invalid setting stats="median": "median" is none of count,min,max,mean,sum,distinct`},
		{jobs.Sort(), bridgefour.Settings{"field": "-1"}, `job sort: invalid setting field=-1: fields are numbered from 1`},
		{jobs.Distinct(), bridgefour.Settings{"field": "2"}, `map/0: BAD_INPUT: input-0: line "a b" has no field 2`},
		{jobs.Top(), bridgefour.Settings{"field": "2"}, `map/0: BAD_INPUT: input-0: line "a b" has no field 2`},
		{jobs.Top(), bridgefour.Settings{"n": "0"}, `job top: invalid setting n=0: want at least 1`},
		{jobs.SampleLines(), bridgefour.Settings{"n": "0"}, `job sample: invalid setting n=0: want at least 1`},
		{jobs.Join(), bridgefour.Settings{"right": "r", "key": "3"}, `map/0: BAD_INPUT: input-0: line "a b" has no field 3`},
		{jobs.Join(), bridgefour.Settings{"right": "r", "kind": "outer"}, `job join: invalid setting kind="outer": want one of inner, left, anti`},
		{jobs.Join(), nil, `setting right missing: use --set right=VALUE`},
		{jobs.BruteForce(), bridgefour.Settings{"hash": "00"}, `job bruteforce: invalid setting hash="00": a hash of sha256 has 64 hexadecimal digits`},
	} {
		_, err := bridgefourtest.Run(t.Context(), test.job, bridgefourtest.Input{Files: []string{"a b\n"}, Settings: test.settings})
		if err == nil || err.Error() != test.want {
			t.Errorf("%s %v: %v, want %s", test.job.Name(), test.settings, err, test.want)
		}
	}
}

func TestSample(t *testing.T) {
	var files []string
	for f := range 3 {
		var b strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&b, "%d\n", 1000*f+i)
		}
		files = append(files, b.String())
	}
	drawn := map[string]int{}
	const seeds, n = 40, 30
	for seed := range seeds {
		got := run(t, jobs.SampleLines(), bridgefourtest.Input{Files: files, Settings: bridgefour.Settings{"n": fmt.Sprint(n), "seed": fmt.Sprint(seed)}})
		lines := strings.Fields(got.Text())
		if slices.Sort(lines); len(slices.Compact(lines)) != n {
			t.Fatalf("seed %d: %d distinct lines, want %d", seed, len(lines), n)
		}
		for _, line := range lines {
			drawn[fmt.Sprint(len(line) > 3, line[0])]++
		}
	}
	// Of 1,200 lines, a third are expected of each file.
	if from2 := drawn[fmt.Sprint(true, '2')]; from2 < 300 || from2 > 500 {
		t.Errorf("%d of %d lines are from the last of three files", from2, seeds*n)
	}
}

func TestPi(t *testing.T) {
	got := run(t, jobs.Pi(), bridgefourtest.Input{Items: []string{"1", "2", "3"}, Settings: bridgefour.Settings{"points": "100000"}})
	if !strings.HasPrefix(got.Text(), "pi\t3.1") {
		t.Errorf("pi = %q", got.Text())
	}
}

func TestBruteForce(t *testing.T) {
	for algorithm, hash := range map[string]string{
		"md5": "900150983cd24fb0d6963f7d28e17f72", "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d",
		"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	} {
		settings := bridgefour.Settings{"algorithm": algorithm, "hash": hash, "alphabet": "abc", "chunk": "10"}
		if _, err := bridgefourtest.Run(t.Context(), jobs.BruteForce(), bridgefourtest.Input{Items: []string{"0"}, Settings: settings}); err == nil {
			t.Errorf("%s: the text is among the first ones", algorithm)
		}
		found := 0
		for item := range 5 {
			got, err := bridgefourtest.Run(t.Context(), jobs.BruteForce(), bridgefourtest.Input{Items: []string{fmt.Sprint(item)}, Settings: settings})
			if err == nil && got.Text() == hash+"\tabc\n" {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: the text was found %d times, want once", algorithm, found)
		}
		for _, test := range []struct{ files, want string }{
			{"0\n1\n2\n3\n4\n", hash + "\tabc\n"},
			{"0\n1\n|2\n3\n4\n|0\n", hash + "\tabc\n"},
			{"0\n|1\n", "map/0: BAD_INPUT: none of the texts of its 2 numbers, the first of which is 0, has the hash"},
			{"", "map/0: BAD_INPUT: the input has no number of texts to try"},
			{"1\n", `map/0: BAD_INPUT: none of the texts "ac" to "aca" has the hash`},
		} {
			got, err := bridgefourtest.Run(t.Context(), jobs.BruteForce(), bridgefourtest.Input{Files: strings.Split(test.files, "|"), Pack: 3, Settings: settings})
			if text := got.Text() + fmt.Sprint(err); text != test.want+"<nil>" && text != test.want {
				t.Errorf("%s: numbers %q: %s, want %s", algorithm, test.files, text, test.want)
			}
		}
	}
}

func TestJoinIsThatOfCoreutils(t *testing.T) {
	r := newRandom(t)
	side := func(lines, keys int) (text string) {
		var b strings.Builder
		for i := range lines {
			fmt.Fprintf(&b, "%d,k%03d,%c\n", i, r.IntN(keys), 'a'+byte(r.IntN(26)))
		}
		return b.String()
	}
	for _, test := range []struct{ left, right, keys int }{{500, 200, 100}, {300, 300, 5}, {10, 0, 5}, {0, 10, 5}, {200, 50, 400}} {
		left, right := side(test.left, test.keys), side(test.right, test.keys)
		dir := t.TempDir()
		sorted := func(name, text string) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(command(t, text, "sort", "-t,", "-k2,2", "-s")), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		l, rt := sorted("left", left), sorted("right", right)
		for kind, args := range map[string][]string{"inner": nil, "left": {"-a1"}, "anti": {"-v1"}} {
			want := command(t, "", "join", append(args, "-t,", "-1", "2", "-2", "2", l, rt)...)
			half := strings.Index(left[len(left)/2:], "\n") + len(left)/2 + 1
			got := run(t, jobs.Join(), bridgefourtest.Input{
				Files: []string{left[:half], right, left[half:]}, Names: []string{"/data/left/1.csv", "/data/right/2.csv", "/data/left/3.csv"},
				Settings: bridgefour.Settings{"right": "right", "kind": kind, "key": "2", "right_key": "2", "sep": ","},
			})
			if command(t, got.Text(), "sort") != command(t, want, "sort") {
				t.Errorf("%v, %s join = %q, want %q", test, kind, got.Text(), want)
			}
		}
	}
}

// TestCRLF: the carriage return of a line end is not of what a job reads in a line, such as the last field of a count or a join. Jobs that write lines write it.
func TestCRLF(t *testing.T) {
	text := "a;x\r\nb;y\r\nc;x\n"
	for _, test := range []struct {
		job      bridgefour.Job
		settings bridgefour.Settings
		want     string
	}{
		{jobs.Count(), bridgefour.Settings{"key": "2"}, "x\t2\ny\t1\n"},
		{jobs.Count(), bridgefour.Settings{"key": "2", "value": "1", "stats": "distinct"}, "x\t2\ny\t1\n"},
		{jobs.Distinct(), bridgefour.Settings{"field": "2"}, "x\ny\n"},
		{jobs.Top(), bridgefour.Settings{"field": "2"}, "x\t2\ny\t1\n"},
		{jobs.Top(), bridgefour.Settings{}, "a;x\t1\nb;y\t1\nc;x\t1\n"},
		{jobs.Distinct(), bridgefour.Settings{}, "a;x\r\nb;y\r\nc;x\n"},
		{jobs.Sort(), bridgefour.Settings{}, "a;x\r\nb;y\r\nc;x\n"},
		{jobs.Sort(), bridgefour.Settings{"field": "2"}, "c;x\na;x\r\nb;y\r\n"}, // by all bytes, as the coreutils do
	} {
		if len(test.settings) > 0 {
			test.settings["sep"] = ";"
		}
		if got := run(t, test.job, bridgefourtest.Input{Files: []string{text}, Settings: test.settings}); got.Text() != test.want {
			t.Errorf("%s %v = %q, want %q", test.job.Name(), test.settings, got.Text(), test.want)
		}
	}
	joined := bridgefour.Settings{"right": "input-1", "sep": ";", "right_key": "2"}
	got := run(t, jobs.Join(), bridgefourtest.Input{Files: []string{"a;1\r\nb;2\r\n", "x;a\ny;b\r\n"}, Settings: joined})
	if want := "a;1;x\nb;2;y\n"; got.Text() != want {
		t.Errorf("join = %q, want %q", got.Text(), want)
	}
}
