package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionText is the version set by the build, else that of the module or of version control.
func (a *app) versionText() string {
	if a.version != "" {
		return a.version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = "-" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changed"
		}
	}
	return "devel" + revision + changed
}

// printVersion is 'bridgefour version' and --version.
func (a *app) printVersion() error {
	_, err := fmt.Fprintf(a.stdout, "bridgefour %s (%s, %s/%s)\n", a.versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs, Example: "  bridgefour version",
		RunE: func(*cobra.Command, []string) error { return a.printVersion() },
	}
}
