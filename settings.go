package bridgefour

import (
	"fmt"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour/internal/bytesize"
)

// Settings that the SDK itself obeys.
const (
	// SettingRecordMax is the size of the longest record that [Records] accepts, as 64MiB. Defaults to 64MiB.
	SettingRecordMax = "record_max"
	// SettingResultMax is the size of the largest result that Collect may write, as 16MiB. Defaults to 16MiB.
	SettingResultMax = "result_max"
)

const (
	recordMaxDefault = 64 << 20
	resultMaxDefault = 16 << 20
)

// Settings are what the user gave with --set KEY=VALUE. A key that is not there has the default that the job names; a
// value of the wrong form is an error that names key, value and the form wanted, and marks [BadInput]: no attempt could
// do better.
type Settings map[string]string

// String gives a setting as it is.
func (s Settings) String(key, def string) string {
	if v, ok := s[key]; ok {
		return v
	}
	return def
}

// Int gives a whole number.
func (s Settings) Int(key string, def int) (int, error) {
	return setting(s, key, def, "a whole number, as 30", strconv.Atoi)
}

// Float gives a number.
func (s Settings) Float(key string, def float64) (float64, error) {
	return setting(s, key, def, "a number, as 0.5", func(v string) (float64, error) { return strconv.ParseFloat(v, 64) })
}

// Bool gives true or false.
func (s Settings) Bool(key string, def bool) (bool, error) {
	return setting(s, key, def, "true or false", strconv.ParseBool)
}

// Duration gives a length of time.
func (s Settings) Duration(key string, def time.Duration) (time.Duration, error) {
	return setting(s, key, def, "a duration, as 90s or 1h30m", time.ParseDuration)
}

// Size gives a number of bytes, as 1000, 64MiB or 1.5g. K, KB and KiB all mean 1024, and so on up to T.
func (s Settings) Size(key string, def int64) (int64, error) {
	return setting(s, key, def, "a size, as 64MiB", parseSize)
}

func setting[T any](s Settings, key string, def T, form string, parse func(string) (T, error)) (T, error) {
	text, ok := s[key]
	if !ok {
		return def, nil
	}
	v, err := parse(text)
	if err != nil {
		return def, BadInput(fmt.Errorf("setting %s is %q; it must be %s", key, text, form))
	}
	return v, nil
}

func parseSize(text string) (int64, error) {
	if text == "0" { // of a limit: none
		return 0, nil
	}
	n, err := bytesize.Parse(text)
	return int64(n), err // at most 2⁶³-1
}
