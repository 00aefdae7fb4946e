package jobs_test

import (
	"fmt"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/bridgefourtest"
	"github.com/bridgefour/bridgefour/jobs"
)

// TestPack: a result does not depend on which files share a task. Some have no end of their last line, and some are empty.
func TestPack(t *testing.T) {
	var files, names []string
	for i := range 23 {
		text := fmt.Sprintf("k%d\t%d\nk%d\t%d", i%7, i, i%3, 2*i)
		if i%2 == 0 {
			text += "\n"
		}
		if i%5 == 4 {
			text = ""
		}
		files, names = append(files, text), append(names, fmt.Sprintf("/in/%d.%s", i, []string{"left", "right"}[i%2]))
	}
	for _, test := range []struct {
		job      bridgefour.Job
		settings bridgefour.Settings
	}{
		{jobs.WordCount(), nil},
		{jobs.Grep{}, bridgefour.Settings{"pattern": "k[01]"}},
		{jobs.Grep{}, bridgefour.Settings{"pattern": "k[01]", "count": "true"}},
		{jobs.Sort(), nil},
		{jobs.Sort(), bridgefour.Settings{"unique": "true"}},
		{jobs.Sort(), bridgefour.Settings{"field": "2", "numeric": "true", "stable": "true"}},
		{jobs.Distinct(), nil},
		{jobs.Distinct(), bridgefour.Settings{"field": "1"}},
		{jobs.Count(), bridgefour.Settings{"value": "2"}},
		{jobs.Count(), bridgefour.Settings{"value": "2", "stats": "sum,distinct"}},
		{jobs.Join(), bridgefour.Settings{"right": "*.right"}},
		{jobs.Top(), bridgefour.Settings{"field": "2", "n": "5"}},
		{jobs.SampleLines(), bridgefour.Settings{"n": "5"}},
	} {
		input := bridgefourtest.Input{Files: files, Names: names, Settings: test.settings}
		one := run(t, test.job, input)
		for _, pack := range []int{2, 4, 100} {
			input.Pack = pack
			if got := run(t, test.job, input); got.Text() != one.Text() {
				t.Errorf("%s %v with %d files a task: %q, want %q", test.job.Name(), test.settings, pack, got.Text(), one.Text())
			}
		}
	}
}
