package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
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
	var file map[string]yaml.Node
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
			if values, err = configValues(f, &v); err != nil {
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
func readConfig(cmd *cobra.Command, path string) (map[string]yaml.Node, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef(cmd, "config file: %v", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, usagef(cmd, "config file %s is not YAML: %v; a file of the original system, in HOCON, is named *.conf", path, err)
	}
	var file map[string]yaml.Node
	if err := doc.Decode(&file); err != nil || file == nil && len(doc.Content) > 0 {
		return nil, usagef(cmd, "config file %s must hold keys and values, each key once, such as 'listen: 127.0.0.1:6550'", path)
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
func configValues(f *pflag.Flag, v *yaml.Node) ([]string, error) {
	var values []string
	switch {
	case v.Kind == yaml.AliasNode:
		return configValues(f, v.Alias)
	case v.Kind == yaml.SequenceNode:
		for _, item := range v.Content {
			s, err := scalar(f, item)
			if err != nil {
				return nil, err
			}
			values = append(values, s)
		}
		if !isRepeatable(f) {
			return []string{strings.Join(values, ",")}, nil
		}
		return values, nil
	case v.Kind == yaml.MappingNode && !isRepeatable(f):
		return nil, errors.New("want one value")
	case v.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(v.Content); i += 2 {
			s, err := scalar(f, v.Content[i+1])
			if err != nil {
				return nil, err
			}
			values = append(values, v.Content[i].Value+"="+s)
		}
		return values, nil
	default:
		s, err := scalar(f, v)
		return []string{s}, err
	}
}

// scalar is the text of a value, as it is spelled.
func scalar(f *pflag.Flag, v *yaml.Node) (string, error) {
	if v.Kind == yaml.AliasNode {
		v = v.Alias
	}
	var is bool
	switch {
	case v.Kind != yaml.ScalarNode:
		return "", errors.New("want a text, a number, true or false")
	case v.Tag == "!!null":
		return "", errors.New("it has no value")
	case f.Value.Type() == "bool" && v.Decode(&is) == nil: // also yes and no
		return strconv.FormatBool(is), nil
	}
	return v.Value, nil
}
