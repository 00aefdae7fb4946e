package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/jobs"
)

// completeBuiltins offers the built-in jobs to a shell.
func (a *app) completeBuiltins(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.builtinNames(), cobra.ShellCompDirectiveNoFileComp
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

// choices is the annotation of a flag with the only values that it takes.
const choices = "choices"

// restrictFlag has a flag take only some values, which a shell completes.
func restrictFlag(cmd *cobra.Command, flag string, values ...string) {
	completeFlag(cmd, flag, offer(values...))
	_ = cmd.Flags().SetAnnotation(flag, choices, values) // the command has the flag
}

// checkChoices refuses other values of such a flag.
func checkChoices(cmd *cobra.Command, f *pflag.Flag) error {
	known, restricted := f.Annotations[choices]
	if !restricted {
		return nil
	}
	for _, value := range valuesOf(f) {
		if !slices.Contains(known, value) {
			return usagef(cmd, "--%s %s: want one of %s%s", f.Name, value, strings.Join(known, ", "), didYouMean(value, known))
		}
	}
	return nil
}

// valuesOf returns the values of a flag, of which a repeatable one has several.
func valuesOf(f *pflag.Flag) []string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.GetSlice()
	}
	return []string{f.Value.String()}
}

// offer offers the same values always; after a colon more follows.
func offer(values ...string) cobra.CompletionFunc {
	directive := cobra.ShellCompDirectiveNoFileComp
	if slices.ContainsFunc(values, func(v string) bool { return strings.HasSuffix(v, ":") }) {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return cobra.FixedCompletions(values, directive)
}

// completeJob completes the flags of a command that describe a job.
func (a *app) completeJob(cmd *cobra.Command) {
	completeFlag(cmd, "set", a.completeSettings)
	completeFlag(cmd, "records", offer("lines", "fixed:", "start:", "fasta", "fastq", "csv", "jsonl"))
	completeFlag(cmd, "split", offer("none"))
	completeFlag(cmd, "pack", offer("none"))
	completeFlag(cmd, "after", a.completeJobs(scope{all: liveStatuses()}))
}

// completeRuns offers the embedded runs that are kept, newest first.
func (a *app) completeRuns(*cobra.Command, []string, string) (ids []string, _ cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	all, _ := a.keptRuns() // a shell shows no errors
	for _, d := range all {
		ids = append(ids, cobra.CompletionWithDesc(d.info.ID, printable(d.info.Program)))
	}
	return ids, directive
}

// completeSettings offers the settings of the built-in job that is given.
func (a *app) completeSettings(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var keys []string
	if len(args) > 0 {
		if job, ok := jobs.Find(a.jobs, args[0]); ok {
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
