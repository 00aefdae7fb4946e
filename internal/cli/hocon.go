package cli

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gurkankaymak/hocon"
	"github.com/spf13/cobra"
)

// originalSuffix is that of configuration files of the original system, in HOCON.
const originalSuffix = ".conf"

// readOriginal reads a configuration file of the original system as if its values were the environment variables of its containers. Variables
// that are set take precedence. It warns of keys that mean nothing here.
func (a *app) readOriginal(cmd *cobra.Command, path string) error {
	leads := cmd.Name() == "leader"
	if !leads && cmd.Name() != "worker" {
		return usagef(cmd, "--config %s: a %s file is of leaders and workers of the original system; want one in YAML", path, originalSuffix)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return usagef(cmd, "config file: %v", err)
	}
	config, err := hocon.ParseString(string(text))
	if err != nil {
		return usagef(cmd, "config file %s is not HOCON: %v", path, err)
	}
	root, ok := config.GetRoot().(hocon.Object)
	if !ok {
		return usagef(cmd, "config file %s must hold keys and values, such as 'self { port = 6550 }'", path)
	}
	f := originalFile{vars: map[string]string{}}
	f.read(root, leads)
	if len(f.ignored) > 0 {
		slices.Sort(f.ignored)
		a.stderr.Printf("warning: %s: these keys mean nothing here: %s", path, strings.Join(slices.Compact(f.ignored), ", "))
	}
	env := a.env
	a.env = func(name string) (string, bool) {
		if v, ok := env(name); ok && v != "" {
			return v, true
		}
		v, ok := f.vars[name]
		return v, ok
	}
	return nil
}

// isOriginal reports whether a --config file is one of the original system.
func isOriginal(path string) bool { return filepath.Ext(path) == originalSuffix }

// originalFile is a configuration file of the original system.
type originalFile struct {
	vars    map[string]string // by environment variable
	ignored []string          // keys
}

func (f *originalFile) read(root hocon.Object, leads bool) {
	for _, key := range slices.Sorted(maps.Keys(root)) {
		switch {
		case key == "self" && leads:
			f.node(key, root[key], map[string]string{"id": "LEADER_ID", "host": "BRIDGEFOUR_HOST", "port": "BRIDGEFOUR_PORT"})
		case key == "self":
			f.node(key, root[key], map[string]string{
				"id": "WORKER_ID", "host": "BRIDGEFOUR_HOST", "port": "BRIDGEFOUR_PORT", "max-slots": envName("slots"),
			})
		case key == "leader" && !leads:
			f.node(key, root[key], map[string]string{"host": "LEADER_HOST", "port": "LEADER_PORT"})
		case key == "leaders" && leads:
			f.nodes(key, root[key], "STANDBY_LEADER_%d_")
		case key == "workers" && leads:
			f.nodes(key, root[key], "WORKER%d_")
		default:
			f.ignored = append(f.ignored, key)
		}
	}
}

func (f *originalFile) nodes(key string, v hocon.Value, prefix string) {
	list, ok := v.(hocon.Array)
	if !ok {
		f.ignored = append(f.ignored, key)
	}
	for i, item := range list {
		p := fmt.Sprintf(prefix, i+1)
		f.node(key, item, map[string]string{"id": p + "ID", "host": p + "HOST", "port": p + "PORT"})
	}
}

// node reads the keys of a leader or worker for which there are variables.
func (f *originalFile) node(key string, v hocon.Value, vars map[string]string) {
	object, ok := v.(hocon.Object)
	if !ok {
		f.ignored = append(f.ignored, key)
	}
	for name, value := range object {
		text := ""
		if value != nil {
			text = strings.Trim(value.String(), `"`)
		}
		switch known := vars[name]; {
		case known != "":
			f.vars[known] = text
		case name != "schema" || text != "http": // whether connections are encrypted is a matter of the whole cluster
			f.ignored = append(f.ignored, key+"."+name)
		}
	}
}
