package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/jobs"
)

// helpBuiltins lets the help of a command that takes a built-in job be about that job, if one is named: run grep --help.
func (a *app) helpBuiltins(cmd *cobra.Command) {
	general := cmd.HelpFunc()
	cmd.SetHelpFunc(func(c *cobra.Command, args []string) {
		if named := c.Flags().Args(); len(named) > 0 {
			if job, ok := jobs.Find(a.jobs, named[0]); ok {
				writeBuiltinHelp(c, program.Describe(job))
				return
			}
		}
		general(c, args)
	})
}

func writeBuiltinHelp(cmd *cobra.Command, d program.Description) {
	path := cmd.CommandPath()
	title := d.Name
	if d.Summary != "" {
		title += ": " + d.Summary
	}
	cmd.Printf("%s\n\nUsage:\n  %s %s [flags]\n", title, path, d.Name)
	if d.Example != "" {
		cmd.Printf("\nExamples:\n  %s %s %s\n", path, d.Name, d.Example)
	}
	if len(d.Settings) > 0 {
		cmd.Printf("\nSettings (--set KEY=VALUE):\n%s", settingsText(d.Settings))
	}
	if len(d.Records) > 0 {
		cmd.Printf("\nKinds of records that it reads (--records KIND): %s\n", strings.Join(d.Records, ", "))
	}
	if !d.NoInput {
		cmd.Printf("\nSettings of all jobs that read:\n%s", settingsText(program.SDKSettings()))
	}
	cmd.Printf("\n'%s --help' lists the flags.\n", path)
}

// settingsText is a table of settings.
func settingsText(settings []bridgefour.Setting) string {
	var b strings.Builder
	t := newTable(&b)
	for _, s := range settings {
		kind := s.Type
		if kind == "" {
			kind = "text"
		}
		t.row("  "+s.Key, kind, settingUsage(&s))
	}
	_ = t.flush() // to memory
	return b.String()
}

// settingUsage says what a setting is, and what stands for a missing one.
func settingUsage(s *bridgefour.Setting) string {
	switch {
	case s.Required:
		return s.Usage + " (required)"
	case s.Default != "":
		return fmt.Sprintf("%s (default %s)", s.Usage, s.Default)
	}
	return s.Usage
}
