package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/jobs"
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

// completeBuiltins offers the built-in jobs to a shell.
func completeBuiltins(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return builtinNames(), cobra.ShellCompDirectiveNoFileComp
}

// completionMax bounds the time that a shell waits for a cluster that may not answer.
const completionMax = time.Second

// completeJobs offers the jobs that a command may be about, newest first.
func (a *app) completeJobs(of scope) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionMax)
		defer cancel()
		found := make(chan []string, 1)
		go func() { found <- a.offeredJobs(ctx, cmd, of.all) }() // if it hangs, it ends with the process
		select {
		case list := <-found:
			return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		case <-ctx.Done():
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// offeredMax is how many jobs a shell offers.
const offeredMax = 50

// offeredJobs lists jobs for a shell. If they cannot be read it lists none: a shell shows no errors.
func (a *app) offeredJobs(ctx context.Context, cmd *cobra.Command, statuses []string) (list []string) {
	if err := a.applySettings(cmd); err != nil {
		return nil
	}
	var err error
	if a.outside, err = outsideFiles(cmd); err != nil {
		return nil
	}
	cluster, _ := cmd.Flags().GetString("cluster")
	c, err := a.connect(cluster, 0) //nolint:contextcheck // it sends nothing
	if err != nil {
		return nil
	}
	for job, err := range c.Jobs(ctx, api.JobQuery{Status: statuses, Limit: offeredMax}) {
		if err != nil || len(list) == offeredMax {
			break
		}
		list = append(list, cobra.CompletionWithDesc(strconv.FormatUint(job.ID, 10), printable(job.Status+" "+job.Name)))
	}
	return list
}

// completeFlag has a shell complete the values of a flag.
func completeFlag(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the command has no such flag
	}
}

// completeSettings offers the settings of the built-in job that is given.
func completeSettings(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var keys []string
	if len(args) > 0 {
		if job, ok := jobs.Find(jobs.All(), args[0]); ok {
			for _, s := range program.Describe(job).Settings {
				keys = append(keys, cobra.CompletionWithDesc(s.Key+"=", settingUsage(&s)))
			}
		}
	}
	return keys, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a script that completes commands and flags in a shell",
		Example:   "  source <(bridgefour completion bash)",
		ValidArgs: shells,
		Args:      oneArg("a shell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return usagef(cmd, "unknown shell %q: want bash, zsh, fish or powershell%s", args[0], didYouMean(args[0], shells))
		},
	}
}
