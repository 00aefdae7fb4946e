package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
	"github.com/bridgefour/bridgefour/jobs"
)

func run(t *testing.T, job bridgefour.Job, input bridgefourtest.Input) bridgefourtest.Result {
	t.Helper()
	result, err := bridgefourtest.Run(t.Context(), job, input)
	if err != nil {
		t.Fatalf("%s: %v", job.Name(), err)
	}
	return result
}

func TestFind(t *testing.T) {
	for name, want := range map[string]string{
		"wordcount": "wordcount",
		"WordCount": "wordcount",
		"grep":      "grep",
		"com.chollinger.bridgefour.shared.jobs.DelayedWordCountBridgeFourJob": "DelayedWordCount",
		"DelayedWordCountJob":      "DelayedWordCount",
		"delayedwordcount":         "DelayedWordCount",
		"a.b.SampleBridgeFourJob":  "Sample",
		"samplebridgefourjob":      "Sample",
		"x.AlwaysOk":               "AlwaysOk",
		"AlwaysOkJob":              "AlwaysOk",
		"Job":                      "",
		"BridgeFourJob":            "",
		"":                         "",
		"wordcounts":               "",
		"AlwaysOk.":                "",
		"SampleJobBridgeFourJob":   "",
		"AlwaysOkBridgeFourJobber": "",
	} {
		got := ""
		if job, ok := jobs.Find(jobs.All(), name); ok {
			got = job.Name()
		}
		if got != want {
			t.Errorf("Find(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestGrep(t *testing.T) {
	files := []string{"error one\nfine\nError two", "nothing\n", "an error\nan error\n"}
	for _, test := range []struct {
		settings bridgefour.Settings
		parts    []string
	}{
		{bridgefour.Settings{"pattern": "error"}, []string{"error one\n", "", "an error\nan error\n"}},
		{bridgefour.Settings{"pattern": "ERROR", "ignore_case": "true"}, []string{"error one\nError two\n", "", "an error\nan error\n"}},
		{bridgefour.Settings{"pattern": "^an|t.o$"}, []string{"Error two\n", "", "an error\nan error\n"}},
		{bridgefour.Settings{"pattern": "error", "invert": "true"}, []string{"fine\nError two\n", "nothing\n", ""}},
	} {
		got := run(t, jobs.Grep{}, bridgefourtest.Input{Files: files, Settings: test.settings})
		if !slices.Equal(got.Parts, test.parts) || !got.PartsAreResult {
			t.Errorf("grep %v = %q, want %q", test.settings, got.Parts, test.parts)
		}
	}
}

func TestGrepCount(t *testing.T) {
	got := run(t, jobs.Grep{}, bridgefourtest.Input{
		Items:    []string{"error", "b", "two\nerrors", "error"},
		Settings: bridgefour.Settings{"pattern": "error", "count": "true"},
	})
	if want := "\"two\\nerrors\"\t1\nb\t0\nerror\t2\n"; got.Collected != want || got.PartsAreResult {
		t.Errorf("grep count = %q, want %q", got.Collected, want)
	}
}

func TestGrepBadSettings(t *testing.T) {
	for want, settings := range map[string]bridgefour.Settings{
		"setting pattern missing: use --set pattern=REGEXP": {},
		`invalid setting pattern="("`:                       {"pattern": "("},
		`invalid setting invert="maybe"`:                    {"pattern": "x", "invert": "maybe"},
		`invalid setting ignore_case=""`:                    {"pattern": "x", "ignore_case": ""},
		`invalid setting count="2"`:                         {"pattern": "x", "count": "2"},
	} {
		_, err := bridgefourtest.Run(t.Context(), jobs.Grep{}, bridgefourtest.Input{Items: []string{"x"}, Settings: settings})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("grep %v: %v, want %s", settings, err, want)
		}
	}
}

func TestDelayedWordCount(t *testing.T) {
	for text, want := range map[string]string{
		"":              "",
		"a b a\n":       "a,2\nb,1\n",
		"a  b\n":        ",1\na,1\nb,1\n",
		"\n\n":          ",2\n",
		" a\n":          ",1\na,1\n",
		"a   \n":        "a,1\n",
		"   \n":         "",
		"a,b a,b\tc":    "a,b,1\na,b\tc,1\n",
		"x y\n\nz x \n": ",1\nx,2\ny,1\nz,1\n",
	} {
		got := run(t, jobs.DelayedWordCount{}, bridgefourtest.Input{Files: []string{text}, Settings: bridgefour.Settings{"timeout": "0"}})
		if got.Parts[0] != want || got.Collected != want {
			t.Errorf("DelayedWordCount(%q) = %q, collected %q, want %q", text, got.Parts[0], got.Collected, want)
		}
	}
	got := run(t, jobs.DelayedWordCount{}, bridgefourtest.Input{
		Files: []string{"a, b", "b b a,"}, Settings: bridgefour.Settings{"timeout": "0"},
	})
	if want := "a,,2\nb,3\n"; got.Collected != want {
		t.Errorf("DelayedWordCount collected %q, want %q", got.Collected, want)
	}
}

func TestDelayedWordCountSleeps(t *testing.T) {
	for _, test := range []struct {
		settings bridgefour.Settings
		want     time.Duration
	}{
		{nil, 30 * time.Second},
		{bridgefour.Settings{"timeout": "3"}, 3 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			run(t, jobs.DelayedWordCount{}, bridgefourtest.Input{Files: []string{""}, Settings: test.settings})
			if time.Since(begun) != test.want {
				t.Errorf("Run() took %v, want %v", time.Since(begun), test.want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(enough) })
		begun := time.Now()
		if _, err := bridgefourtest.Run(ctx, jobs.DelayedWordCount{}, bridgefourtest.Input{Files: []string{""}}); !errors.Is(err, enough) || time.Since(begun) != time.Second {
			t.Errorf("Map() = %v after %v, want to be interrupted after 1s", err, time.Since(begun))
		}
	})
}

func TestNoops(t *testing.T) {
	for _, job := range []bridgefour.Job{jobs.Sample{}, jobs.AlwaysOk{}} {
		if got := run(t, job, bridgefourtest.Input{Files: []string{"text"}}); got.Parts[0] != "" || !got.PartsAreResult {
			t.Errorf("%s = %+v, want nothing", job.Name(), got)
		}
	}
}

func ExampleFind() {
	job, ok := jobs.Find(jobs.All(), "com.chollinger.bridgefour.shared.jobs.SampleBridgeFourJob")
	fmt.Println(job.Name(), ok)
	// Output: Sample true
}

// TestRecordKinds: a job refuses the records that it would tear apart.
func TestRecordKinds(t *testing.T) {
	lines := []string{"lines", "jsonl"}
	text := []string{"lines", "jsonl", "csv", "fasta", "fastq", "start"}
	want := map[string][]string{
		"wordcount": text, "DelayedWordCount": text, "grep": lines, "count": lines, "distinct": lines, "sort": lines, "top": lines, "sample": lines,
		"bruteforce": lines, "join": lines,
	}
	for _, job := range jobs.All() {
		var got []string
		if described, ok := job.(bridgefour.Describer); ok {
			got = described.Describe().Records
		}
		if !slices.Equal(got, want[job.Name()]) {
			t.Errorf("records of %s = %q, want %q", job.Name(), got, want[job.Name()])
		}
	}
}
