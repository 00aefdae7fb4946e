package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// envName is the environment variable for a flag.
func envName(flag string) string {
	return "BRIDGEFOUR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applySettings sets flags that are not on the command line from the environment, then from the --config file.
func (a *app) applySettings(cmd *cobra.Command) error {
	a.typed = map[string]bool{}
	cmd.Flags().Visit(func(f *pflag.Flag) { a.typed[f.Name] = true })
	path, _ := cmd.Flags().GetString("config")
	if v, ok := a.env(envName("config")); ok && path == "" {
		path = v
	}
	var file map[string]any
	if isOriginal(path) {
		if err := a.readOriginal(cmd, path); err != nil {
			return err
		}
	} else if path != "" {
		var err error
		if file, err = readConfig(cmd, path); err != nil {
			return err
		}
	}
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || f.Name == "version" || f.Name == "config" || err != nil {
			return
		}
		// An empty variable counts as unset: compose files and CI settings define such variables. That of join does not: a leader without it
		// makes a cluster of its own.
		if v, ok := a.env(envName(f.Name)); ok && (v != "" || f.Name == "join") {
			values := []string{v}
			if isRepeatable(f) {
				values = strings.Split(strings.TrimSuffix(v, "\n"), "\n")
			}
			err = setFlag(cmd, f, values, "environment variable "+envName(f.Name))
		} else if v, ok := file[f.Name]; ok {
			var values []string
			if values, err = configValues(f, v); err != nil {
				err = usagef(cmd, "%s: key %s: %v", path, f.Name, err)
				return
			}
			err = setFlag(cmd, f, values, fmt.Sprintf("%s: key %s", path, f.Name))
		}
	})
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err == nil {
			err = checkFlag(cmd, f)
		}
	})
	return err
}

// checkFlag checks the value of a flag that is set.
func checkFlag(cmd *cobra.Command, f *pflag.Flag) error {
	if f.Value.Type() == "string" && f.Value.String() == "" { // and not the default
		return usagef(cmd, "--%s is empty; is a variable unset? Without a value leave it out", f.Name)
	}
	return checkChoices(cmd, f)
}

func setFlag(cmd *cobra.Command, f *pflag.Flag, values []string, source string) error {
	for _, v := range values {
		if err := cmd.Flags().Set(f.Name, v); err != nil {
			if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
				err = errors.New(wantedValue(invalid))
			}
			return usagef(cmd, "%s: invalid value %q for --%s: %v", source, v, f.Name, err)
		}
	}
	return nil
}

func isRepeatable(f *pflag.Flag) bool {
	_, ok := f.Value.(pflag.SliceValue)
	return ok
}

// readConfig reads a --config file. Its keys are flag names of any command.
func readConfig(cmd *cobra.Command, path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef(cmd, "config file: %v", err)
	}
	tree, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, usagef(cmd, "config file %s is not YAML: %v; a file of the original system, in HOCON, is named *.conf", path, err)
	}
	var file map[string]any
	dec := json.NewDecoder(bytes.NewReader(tree))
	dec.UseNumber() // numbers keep their spelling
	if err := dec.Decode(&file); err != nil {
		return nil, usagef(cmd, "config file %s must hold keys and values, such as 'listen: 127.0.0.1:6550'", path)
	}
	known := map[string]bool{}
	var collect func(c *cobra.Command)
	collect = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		for _, sub := range c.Commands() {
			collect(sub)
		}
	}
	collect(cmd.Root())
	for _, key := range slices.Sorted(maps.Keys(file)) {
		if !known[key] {
			return nil, usagef(cmd, "%s: unknown key %q: no flag --%s%s", path, key, key,
				didYouMean(key, slices.Sorted(maps.Keys(known))))
		}
	}
	return file, nil
}

// configValues converts a value of a config file to flag values.
func configValues(f *pflag.Flag, v any) ([]string, error) {
	var values []string
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			s, err := scalar(item)
			if err != nil {
				return nil, err
			}
			values = append(values, s)
		}
		if !isRepeatable(f) {
			return []string{strings.Join(values, ",")}, nil
		}
		return values, nil
	case map[string]any:
		if !isRepeatable(f) {
			return nil, errors.New("want one value")
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			s, err := scalar(v[key])
			if err != nil {
				return nil, err
			}
			values = append(values, key+"="+s)
		}
		return values, nil
	default:
		s, err := scalar(v)
		return []string{s}, err
	}
}

func scalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return fmt.Sprint(v), nil
	case nil:
		return "", errors.New("it has no value")
	default:
		return "", errors.New("want a text, a number, true or false")
	}
}
