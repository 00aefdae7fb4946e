package program

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/suggest"
)

// Description describes a built-in job for planning and the command line.
type Description struct {
	bridgefour.Description
	Name     string
	Collects bool  // it has a collect stage
	Broken   error // its own methods panic, so that it cannot be run

	check func(settings bridgefour.Settings) error // by the job itself; nil: it has no check
}

// Describe describes a job.
func Describe(job bridgefour.Job) Description {
	d := Description{Name: job.Name()}
	if job, ok := job.(bridgefour.Describer); ok {
		d.Broken = stage.Caught(func() error { d.Description = job.Describe(); return nil })
	}
	if job, ok := job.(bridgefour.SettingsChecker); ok {
		d.check = func(settings bridgefour.Settings) error {
			return stage.Caught(func() error { return job.CheckSettings(settings) })
		}
	}
	_, d.Collects = job.(bridgefour.Collector)
	if _, line := job.(stage.Job); line {
		d.Divisible = true
	}
	return d
}

// SDKSettings are the settings that the SDK reads for each job that reads.
func SDKSettings() []bridgefour.Setting {
	return []bridgefour.Setting{
		{Key: bridgefour.SettingRecordMax, Usage: "longest record", Type: "size", Default: "64MiB"},
		{Key: bridgefour.SettingResultMax, Usage: "largest collected result; beyond it, the parts are the result", Type: "size", Default: "16MiB"},
		{Key: bridgefour.SettingZstdWindowMax, Usage: "largest window of a zstd file", Type: "size", Default: "128MiB"},
	}
}

// unknownMax bounds how many settings that a job does not have are listed.
const unknownMax = 10

// CheckSettings returns what is wrong with the settings of a job, in their order: those that it does not have, those that it needs, and values
// that it could not read.
func (d *Description) CheckSettings(set map[string]string) (errs []string) {
	if d.Broken != nil {
		return []string{fmt.Sprintf("job %s: %v", d.Name, d.Broken)}
	}
	known := slices.Clone(d.Settings)
	if !d.NoInput {
		known = append(known, SDKSettings()...)
	}
	names := make([]string, len(known))
	for i := range known {
		names[i] = known[i].Key
	}
	all := "it has none"
	if len(names) > 0 {
		all = "it has " + strings.Join(names, ", ")
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if len(errs) == unknownMax {
			break
		}
		if !slices.Contains(names, key) {
			meant := ""
			if closest := suggest.Closest(key, names); closest != "" {
				meant = fmt.Sprintf("did you mean %s? ", closest)
			}
			errs = append(errs, fmt.Sprintf("%s has no setting %q: %s%s", d.Name, key, meant, all))
		}
	}
	for i := range known {
		s := &known[i]
		_, given := set[s.Key]
		if s.Required && !given {
			usage := ""
			if s.Usage != "" {
				usage = ", " + s.Usage
			}
			errs = append(errs, fmt.Sprintf("%s needs a setting %q%s: %s", d.Name, s.Key, usage, all))
		} else if err := checkValue(s, set); err != nil {
			errs = append(errs, err.Error())
		}
	}
	if len(errs) == 0 && d.check != nil {
		if err := d.check(set); err != nil {
			errs = strings.Split(err.Error(), "\n")
		}
	}
	return errs
}

// checkValue reads the value of a setting as the job does.
func checkValue(s *bridgefour.Setting, set bridgefour.Settings) (err error) {
	switch s.Type {
	case "bool":
		_, err = set.Bool(s.Key, false)
	case "integer":
		text, given := set[s.Key]
		if _, ok := new(big.Int).SetString(text, 10); given && !ok { // its size is known to the job
			err = fmt.Errorf("invalid setting %s=%q: want an integer such as 30", s.Key, text)
		}
	case "number":
		_, err = set.Float(s.Key, 0)
	case "size":
		_, err = set.Size(s.Key, 0)
	case "duration":
		_, err = set.Duration(s.Key, 0)
	}
	return err
}
