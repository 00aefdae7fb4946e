package bridgefour

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bridgefour/bridgefour/internal/record"
	"github.com/bridgefour/bridgefour/internal/stage"
)

// New makes a job of typed stages. The function build makes them from its configuration: it runs at submit, where an error is one of the
// user's request, and again on each worker, so it must make the same stages for the same configuration. If it panics, the job is refused, and others of the
// program are not affected.
//
// C is a struct, whose exported fields are the settings of the job:
//
//	type Config struct {
//		MinLength int           `b4:"min_length,default=1" help:"shortest word that counts"`
//		Pause     time.Duration `b4:",default=1s"`
//		Pattern   string        `b4:",required"`
//	}
//
// Without a name in the tag, it is that of the field with underscores: min_length. Fields are strings, numbers, booleans, durations and [Size]. What is wrong with a
// setting is an error of the submit.
func New[C any](name string, build func(config C) (Output, error), options ...Option) Job {
	j := &typedJob{name: name}
	for _, o := range options {
		o(&j.options)
	}
	fields, err := settingsOf(reflect.TypeFor[C]())
	for i := range fields {
		j.options.description.Settings = append(j.options.description.Settings, fields[i].setting)
	}
	if n := j.options.partitions; err == nil && (n < 0 || n > stage.PartitionsMax) {
		err = fmt.Errorf("option Partitions(%d): want 1 to %d, or 0 for a number that fits the size of the input", n, stage.PartitionsMax)
	}
	for _, kind := range j.options.description.Records {
		if err == nil && !record.IsName(kind) {
			err = fmt.Errorf("option RecordKinds: unknown kind of records %q; known: %s", kind, record.Known)
		}
	}
	j.plan = func(settings map[string]string) (*typedProgram, error) {
		if err != nil {
			return nil, fmt.Errorf("job %s: %w", name, &stage.DefectError{Err: err})
		}
		var config C
		if err := decodeSettings(reflect.ValueOf(&config).Elem(), fields, settings); err != nil {
			return nil, err
		}
		var program *typedProgram
		err := stage.Caught(func() error {
			out, err := build(config)
			if err != nil {
				return err
			}
			if out == nil {
				return &stage.DefectError{Err: errors.New("its building function has returned neither an output nor an error")}
			}
			last, err := out.output()
			if err != nil {
				return &stage.DefectError{Err: err}
			}
			program = newTypedProgram(last)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("job %s: %w", name, err)
		}
		return program, nil
	}
	return j
}

// Option is an option of [New].
type Option func(o *options)

type options struct {
	description Description
	partitions  int
}

// Summary says what the job does, in a few words, for its help. Defaults to nothing.
func Summary(text string) Option { return func(o *options) { o.description.Summary = text } }

// Example is what may follow bridgefour run NAME, for the help. Defaults to nothing.
func Example(text string) Option { return func(o *options) { o.description.Example = text } }

// NoInput allows jobs without an input, which have one task in the first stage. Defaults to an error of a submit without an input.
func NoInput() Option { return func(o *options) { o.description.NoInput = true } }

// FirstSuccess makes a job done when one task succeeds: see [Description]. It is for jobs of one stage. Defaults to a job that needs all of its tasks.
func FirstSuccess() Option { return func(o *options) { o.description.FirstSuccess = true } }

// RecordKinds are the kinds of --records that the job reads: see [Description]. Defaults to all.
func RecordKinds(kinds ...string) Option {
	return func(o *options) { o.description.Records = kinds }
}

// Partitions is the number of tasks of each later stage, 1 to 65,536. Defaults to 0: the number of --partitions, or one that fits the size of the input.
func Partitions(n int) Option { return func(o *options) { o.partitions = n } }

// typedJob implements Job, Describer and stage.Job.
type typedJob struct {
	name    string
	options options
	plan    func(settings map[string]string) (*typedProgram, error)
}

// Name is the name on the command line.
func (j *typedJob) Name() string { return j.name }

// Describe describes the job.
func (j *typedJob) Describe() Description { return j.options.description }

// Plan builds the stages.
func (j *typedJob) Plan(settings map[string]string) (stage.Program, error) {
	p, err := j.plan(settings)
	if err != nil {
		return nil, BadInput(err)
	}
	if len(p.stages) > stage.StagesMax {
		return nil, BadInput(fmt.Errorf("job %s has %d stages; the limit is %d", j.name, len(p.stages), stage.StagesMax))
	}
	for i := range p.stages {
		if i > 0 && p.stages[i].Partitions == 0 {
			p.stages[i].Partitions = j.options.partitions
		}
	}
	return p, nil
}

// DescribeSettings returns the settings that the fields of C are, as for [New], for [Description]. It panics if C is not a configuration.
func DescribeSettings[C any]() (list []Setting) {
	fields, err := settingsOf(reflect.TypeFor[C]())
	if err != nil {
		panic(err)
	}
	for i := range fields {
		list = append(list, fields[i].setting)
	}
	return list
}

// DecodeSettings returns a configuration, as for [New]. The error is about all settings that are wrong, and marked by [BadInput].
func DecodeSettings[C any](settings Settings) (config C, err error) {
	fields, err := settingsOf(reflect.TypeFor[C]())
	if err == nil {
		err = decodeSettings(reflect.ValueOf(&config).Elem(), fields, settings)
	}
	if err != nil {
		err = BadInput(err)
	}
	return config, err
}

// Size is a setting in bytes, such as 64MiB. K, KB and KiB all mean 1024, and so on up to T.
type Size int64

// settingField is a setting and its field in a configuration.
type settingField struct {
	setting Setting
	field   int
	set     func(field reflect.Value, text string) error
	form    string // for errors
}

// settingsOf returns the settings of a configuration.
func settingsOf(t reflect.Type) (fields []settingField, err error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("configuration %v: want a struct", t)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("b4")
		if !f.IsExported() {
			if tagged {
				return nil, fmt.Errorf("field %s of %v has a tag, but is not exported", f.Name, t)
			}
			continue
		}
		name, rest, _ := strings.Cut(tag, ",")
		if name == "" {
			name = underscored(f.Name)
		}
		if strings.ContainsAny(name, "= \t\n") || name == "required" {
			return nil, fmt.Errorf("field %s of %v: %q is no name of a setting; a tag is NAME, \",default=VALUE\" or \",required\", or a name and one of these", f.Name, t, name)
		}
		if slices.Contains(ownSettings, name) {
			return nil, fmt.Errorf("field %s of %v: the setting %s is one that all jobs have: give it another name", f.Name, t, name)
		}
		if slices.ContainsFunc(fields, func(other settingField) bool { return other.setting.Key == name }) {
			return nil, fmt.Errorf("field %s of %v: another field is the setting %s", f.Name, t, name)
		}
		s := settingField{setting: Setting{Key: name, Usage: f.Tag.Get("help")}, field: i}
		if s.set, s.setting.Type, s.form = settingType(f.Type); s.set == nil {
			return nil, fmt.Errorf("field %s of %v: settings are strings, numbers, booleans, time.Duration and bridgefour.Size", f.Name, t)
		}
		switch def, given := strings.CutPrefix(rest, "default="); {
		case given:
			s.setting.Default = def
			if err := s.set(reflect.New(f.Type).Elem(), def); err != nil {
				return nil, fmt.Errorf("field %s of %v: the default is not %s", f.Name, t, s.form)
			}
		case rest == "required":
			s.setting.Required = true
		case rest != "":
			return nil, fmt.Errorf("field %s of %v: unknown option %q in its tag; want default=VALUE or required", f.Name, t, rest)
		}
		fields = append(fields, s)
	}
	return fields, nil
}

// underscored is a field's name as a setting: MinLength is min_length, and UserID user_id.
func underscored(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// settingType returns what parses a setting into a field, the type in the help, and the form in errors.
func settingType(t reflect.Type) (set func(field reflect.Value, text string) error, name, form string) {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return func(f reflect.Value, text string) error {
			d, err := time.ParseDuration(text)
			f.SetInt(int64(d))
			return err
		}, "duration", "a duration such as 90s or 1h30m"
	case reflect.TypeFor[Size]():
		return func(f reflect.Value, text string) error {
			n, err := parseSize(text)
			f.SetInt(n)
			return err
		}, "size", "a size such as 64MiB"
	}
	set = setterOf(t)
	switch t.Kind() { //nolint:exhaustive // integers, or none
	case reflect.String:
		return set, "text", "a text"
	case reflect.Bool:
		return set, "bool", "true or false"
	case reflect.Float32, reflect.Float64:
		return set, "number", "a number such as 0.5"
	}
	return set, "integer", "an integer such as 30"
}

// formOf is the form of a setting in the error about a text that a field of type t does not take. Of an integer that is too small or too large, it has the range.
func (s *settingField) formOf(t reflect.Type, text string, err error) string {
	switch unsigned := s.setting.Type == "integer" && t.Kind() >= reflect.Uint; {
	case unsigned && (errors.Is(err, strconv.ErrRange) || strings.HasPrefix(text, "-")):
		return fmt.Sprintf("an integer from 0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	case s.setting.Type == "integer" && errors.Is(err, strconv.ErrRange):
		return fmt.Sprintf("an integer from %d to %d", int64(math.MinInt64)>>(64-t.Bits()), int64(math.MaxInt64)>>(64-t.Bits()))
	}
	return s.form
}

// decodeSettings sets the fields of a configuration. The error is about all settings that are wrong.
func decodeSettings(config reflect.Value, fields []settingField, settings map[string]string) error {
	var errs []error
	for i := range fields {
		s := &fields[i]
		text, given := settings[s.setting.Key]
		switch {
		case given:
		case s.setting.Required:
			errs = append(errs, fmt.Errorf("setting %s missing: use --set %s=VALUE", s.setting.Key, s.setting.Key))
			continue
		case s.setting.Default == "":
			continue
		default:
			text = s.setting.Default
		}
		if err := s.set(config.Field(s.field), text); err != nil {
			errs = append(errs, fmt.Errorf("invalid setting %s=%q: want %s", s.setting.Key, text, s.formOf(config.Field(s.field).Type(), text, err)))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		isField := slices.ContainsFunc(fields, func(f settingField) bool { return f.setting.Key == key })
		if !isField && !slices.Contains(ownSettings, key) {
			errs = append(errs, fmt.Errorf("unknown setting %q", key))
		}
	}
	return errors.Join(errs...)
}
