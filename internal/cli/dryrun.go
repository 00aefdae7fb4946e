package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/server"
	"github.com/bridgefour/bridgefour/internal/state"
)

// What --dry-run prints: so many commands, and the beginning of each.
const (
	commandsShown   = 10
	commandRunesMax = 500
)

// writeStages says what reduces the outputs of the tasks.
func writeStages(b *strings.Builder, p *plan.Result, r *api.JobRequest) {
	if r.Program.Combine != "" {
		fmt.Fprintf(b, "their outputs go through: %s\n", printable(r.Program.Combine))
	}
	for i := range p.Stages {
		switch s := &p.Stages[i]; {
		case s.Role != state.RoleReduce || s.Fitted && p.Deferred != nil:
		case r.Program.Reduce != "":
			fmt.Fprintf(b, "then %s that reduce: %s\n", plural(s.Tasks, "task"), printable(r.Program.Reduce))
		default:
			fmt.Fprintf(b, "then %s of stage %s\n", plural(s.Tasks, "task"), s.Name)
		}
	}
}

// dryRunAll is dryRun of a job, or of each of a flow.
func (a *app) dryRunAll(cmd *cobra.Command, jobs []api.JobRequest, flow bool) error {
	if !flow {
		return a.dryRun(cmd, &jobs[0], "", nil, 0)
	}
	of, err := plan.NewFlow(jobs)
	if err != nil {
		return &exitError{code: exitUsage, err: node.PlanProblem(err, "invalid flow", "body.")}
	}
	for i := range jobs {
		if _, err := fmt.Fprintf(a.stdout, "job %s\n", printable(jobs[i].Name)); err != nil {
			return err
		}
		if err := a.dryRun(cmd, &jobs[i], fmt.Sprintf("jobs[%d].", i), of, 0); err != nil {
			return err
		}
	}
	return nil
}

// dryRun prints what a job would run, as it is planned on this machine for so many slots; 0: they are not known. Its request is below a location; of is the flow of
// which it is a part.
func (a *app) dryRun(cmd *cobra.Command, r *api.JobRequest, location string, of *plan.Flow, slots int) error {
	planned := *r
	if of == nil {
		if _, _, err := a.after(cmd, r); err != nil {
			return err
		}
		planned.After = nil // they may be names for jobs of the cluster
	}
	options := plan.Options{Builtins: server.Builtins(a.jobs), Flow: of, Slots: uint64(slots)} //nolint:gosec // not negative
	if a.lines != nil {
		defer a.lines.Close() //nolint:errcheck // it has no name: nothing is kept
		info, err := a.lines.Stat()
		if err != nil {
			return err
		}
		options.Lines = plan.NewLines(0)
		if err := options.Lines.Read(io.NewSectionReader(a.lines, 0, info.Size()), r.Lines.Null); err != nil {
			return &exitError{code: exitUsage, err: err}
		}
	}
	p, err := plan.Plan(cmd.Context(), &planned, options)
	if err != nil {
		return &exitError{code: exitUsage, err: node.PlanProblem(err, "invalid job", "body."+location)}
	}
	a.printWarnings(&api.Job{Warnings: p.Warnings})
	var b strings.Builder
	if err := writeTasks(&b, &p, r); err != nil {
		return err
	}
	if slots == 0 && (p.SplitMax > 0 || p.Pack != nil && p.Pack.Fitted) {
		b.WriteString("the cluster divides the input for the slots that it has, and may make other tasks\n")
	}
	parts, err := partsText(&p)
	if err != nil {
		return err
	}
	writeStages(&b, &p, r)
	fmt.Fprintf(&b, "output: %s\n", parts)
	if len(r.After) > 0 {
		fmt.Fprintf(&b, "starts after: %s\n", strings.Join(r.After, ", "))
	}
	if len(r.Locks) > 0 {
		fmt.Fprintf(&b, "holds the locks: %s\n", printable(strings.Join(r.Locks, ", ")))
	}
	fmt.Fprintf(&b, "each task needs: %s", plural(uint64(p.SlotsPerTask), "slot"))
	if p.Memory > 0 {
		fmt.Fprintf(&b, ", %s of memory", bytesText(p.Memory))
	}
	for _, resource := range p.Resources {
		fmt.Fprintf(&b, ", %d %s", resource.N, resource.Name)
	}
	b.WriteByte('\n')
	if limits := limitsText(&p); limits != "" {
		fmt.Fprintf(&b, "limits: %s\n", limits)
	}
	_, err = io.WriteString(a.stdout, b.String())
	return err
}

// partsText says where the outputs of the tasks go.
func partsText(p *plan.Result) (string, error) {
	if p.Output == "" {
		return "to standard output, in the order of the tasks", nil
	}
	if p.Deferred != nil {
		return p.Output, nil
	}
	tasks := p.Stages[state.PartStage(p.Stages)].Tasks
	names := partname.New(p.NameParts, &p.Input, tasks)
	first, err := names.Name(0)
	if err != nil || tasks == 1 {
		return p.Output + "/" + first, err
	}
	last, err := names.Name(tasks - 1)
	return p.Output + "/" + first + " … " + last, err
}

// limitsText lists the limits of a job that its user has set.
func limitsText(p *plan.Result) string {
	var limits []string
	if p.MaxRunning > 0 {
		limits = append(limits, plural(uint64(p.MaxRunning), "task")+" at a time")
	}
	if p.Delay > 0 {
		limits = append(limits, fmt.Sprintf("%v between two starts", p.Delay))
	}
	if p.RetryDelay > 0 {
		limits = append(limits, fmt.Sprintf("%v before the first retry of a task", p.RetryDelay))
	}
	if p.Timeout > 0 {
		limits = append(limits, fmt.Sprintf("%v for an attempt", p.Timeout))
	}
	if p.MaxFails != nil {
		limits = append(limits, "ends with more failed tasks than "+p.MaxFails.String())
	}
	return strings.Join(limits, ", ")
}

// writeTasks writes the first tasks, and how many there are.
func writeTasks(b *strings.Builder, p *plan.Result, r *api.JobRequest) error {
	if p.Deferred != nil {
		b.WriteString("its tasks are known once the jobs before it have written their outputs\n")
		return nil
	}
	command := p.Command.Compile(p.Input.Columns())
	names := partname.New(p.NameParts, &p.Input, p.Input.Tasks)
	reader := names.Input()
	for task := range min(p.Input.Tasks, commandsShown) {
		split, err := reader.Split(task)
		if err != nil {
			return err
		}
		line := taskLine(&split, task, p, command, r)
		if runes := []rune(line); len(runes) > commandRunesMax {
			line = string(runes[:commandRunesMax]) + "…"
		}
		if p.NameParts != "" {
			name, err := names.Name(task)
			if err != nil {
				return err
			}
			line += " >" + placeholder.Quote(name)
		}
		fmt.Fprintf(b, "%d\t%s\n", task, printable(line))
	}
	if p.Input.Tasks > commandsShown {
		b.WriteString("…\n")
	}
	fmt.Fprintf(b, "%s", plural(p.Input.Tasks, "task"))
	switch {
	case p.Input.Batch > 0:
		b.WriteString(" of " + plural(p.Input.Items, "item"))
	case p.Input.Bytes > 0:
		fmt.Fprintf(b, " of %s", bytesText(p.Input.Bytes))
	}
	b.WriteByte('\n')
	return nil
}

// taskLine is the command of a task, with what it reads.
func taskLine(split *state.Split, task uint64, p *plan.Result, command *placeholder.Command, r *api.JobRequest) string {
	columns, batch := p.Input.Columns(), p.Input.Batch > 0
	v := placeholder.Values{Items: partname.Items(split), Number: task + 1, Slot: 1}
	var words []string
	if r.Program.Builtin != "" {
		words = append(words, r.Program.Builtin)
	}
	for _, arg := range command.Expand(&v, columns != nil && !command.Any() && !batch) {
		words = append(words, placeholder.Quote(arg))
	}
	line := strings.Join(words, " ")
	switch {
	case split.Files != nil:
		line += " <" + placeholder.Quote(string(split.Files[0].Path)) + " and " + plural(uint64(len(split.Files)-1), "more file") //nolint:gosec // positive
	case split.Path != nil && !command.TakesPath():
		line += " <" + placeholder.Quote(string(split.Path))
		if !split.Whole && split.Length < split.Version.Size {
			line += fmt.Sprintf(" (bytes %d to %d)", split.Offset, split.Offset+split.Length)
		}
	case columns != nil && (batch && !command.UsesItem() || r.Program.Builtin != ""):
		line += " <<<" + placeholder.Quote(string(placeholder.Text(split.Values, split.Columns))+string(split.Item))
	}
	return line
}
