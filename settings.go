package bridgefour

import (
	"fmt"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour/internal/bytesize"
)

// Settings that the SDK itself reads.
const (
	// SettingRecordMax is the maximum length of a record in a [Scanner], such as 64MiB. Defaults to 64MiB.
	SettingRecordMax = "record_max"
	// SettingResultMax is the maximum size of the result of a Collect, such as 16MiB. Defaults to 16MiB.
	SettingResultMax = "result_max"
	// SettingZstdWindowMax is the largest window of a zstd file that is read, such as 1GiB; each slot that reads one takes that much memory.
	// Defaults to 128MiB; the maximum is 2GiB.
	SettingZstdWindowMax = "zstd_window_max"
)

var ownSettings = []string{SettingRecordMax, SettingResultMax, SettingZstdWindowMax} //nolint:gochecknoglobals // a constant

const (
	recordMaxDefault = 64 << 20
	resultMaxDefault = 16 << 20
)

// Settings are the values given with --set KEY=VALUE. A missing key has the default given by the job. A malformed value is an error
// that names key, value and expected form, and is marked by [BadInput], because no retry can succeed.
type Settings map[string]string

// String returns a setting.
func (s Settings) String(key, def string) string {
	if v, ok := s[key]; ok {
		return v
	}
	return def
}

// Int returns an integer.
func (s Settings) Int(key string, def int) (int, error) {
	return setting(s, key, def, "an integer such as 30", strconv.Atoi)
}

// Float returns a number.
func (s Settings) Float(key string, def float64) (float64, error) {
	return setting(s, key, def, "a number such as 0.5", func(v string) (float64, error) { return strconv.ParseFloat(v, 64) })
}

// Bool returns true or false.
func (s Settings) Bool(key string, def bool) (bool, error) {
	return setting(s, key, def, "true or false", strconv.ParseBool)
}

// Duration returns a duration.
func (s Settings) Duration(key string, def time.Duration) (time.Duration, error) {
	return setting(s, key, def, "a duration such as 90s or 1h30m", time.ParseDuration)
}

// Size returns a number of bytes, such as 1000, 64MiB or 1.5g. K, KB and KiB all mean 1024, and so on up to T.
func (s Settings) Size(key string, def int64) (int64, error) {
	return setting(s, key, def, "a size such as 64MiB", parseSize)
}

func setting[T any](s Settings, key string, def T, form string, parse func(string) (T, error)) (T, error) {
	text, ok := s[key]
	if !ok {
		return def, nil
	}
	v, err := parse(text)
	if err != nil {
		return def, BadInput(fmt.Errorf("invalid setting %s=%q: want %s", key, text, form))
	}
	return v, nil
}

func parseSize(text string) (int64, error) {
	if text == "0" { // for limits: none
		return 0, nil
	}
	n, err := bytesize.Parse(text)
	return int64(n), err // at most 2⁶³-1
}
