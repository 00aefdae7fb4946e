package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

func (a *app) logsCommand() *cobra.Command {
	var r readFlags
	var follow bool
	tasks := scope{tasks: true}
	cmd := &cobra.Command{
		Use: "logs N[/STAGE/INDEX]…", Short: "Print the logs (stderr) of a job's tasks, or of one task",
		Long: `Print the logs (stderr) of a job's tasks, or of one task.

Each line of a job is prefixed with its task. Lines of an attempt that did not win (it failed, or its worker was lost)
also show the attempt number: 12/map/7#1.

Workers keep the logs. The leaders keep the last 64 KiB of the log and of the standard output of failed attempts, of the first and
the last ones of a job: their standard output is marked "stdout", and their logs "kept" if the worker no longer has them. If the log
of a worker cannot be read, because it is away, standard error says which tasks' logs it has, and the exit code is 5.

The logs of several jobs are printed one after another.

` + selectorsHelp,
		Example: `  bridgefour logs last -f
  bridgefour logs 7/map/3`,
		Args: tasks.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			patience := followRetryFor
			if !follow {
				patience = 0
			}
			c, err := a.connect(r.cluster, patience)
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), cmd, tasks, args, c, func(s subject) error { return a.printLogs(cmd.Context(), c, s, follow, r.json) })
		},
	}
	r.add(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "continue until the job has ended")
	return cmd
}

func (a *app) printLogs(ctx context.Context, c *client.Client, s subject, follow, asJSON bool) error {
	out := &logPrinter{w: a.stdout, prefix: s.stage == "" || s.among, open: map[string][]byte{}}
	q := api.LogQuery{Job: s.job, OneTask: s.stage != "", Stage: s.stage, Index: s.index, Follow: follow}
	partial := false
	for record, err := range c.Logs(ctx, q) {
		if err != nil {
			return orInterrupted(ctx, err)
		}
		if record.Missing != "" {
			partial = true
			a.stderr.Printf("bridgefour: logs missing: %s", printableLines(record.Missing))
		}
		switch {
		case asJSON:
			err = printJSON(a.stdout, record)
		case record.Missing == "":
			err = out.add(&record)
		}
		if err != nil {
			return err
		}
	}
	if err := out.end(); err != nil || !partial {
		return err
	}
	return &exitError{code: exitPartial}
}

// logPrinter prints log records by whole lines, so that lines of concurrent tasks do not mix.
type logPrinter struct {
	w      io.Writer
	prefix bool // prefix each line with its task
	plain  bool // prefix no line
	open   map[string][]byte
	order  []string // of open, for a deterministic end
}

func (p *logPrinter) add(r *api.LogRecord) error {
	label := ""
	switch {
	case r.Output:
		label = fmt.Sprintf("%s#%d stdout: ", r.Task, r.Attempt)
	case r.Kept:
		label = fmt.Sprintf("%s#%d kept: ", r.Task, r.Attempt)
	case !r.Winner && r.Attempt > 0:
		label = fmt.Sprintf("%s#%d: ", r.Task, r.Attempt)
	case p.prefix:
		label = r.Task + ": "
	}
	rest, known := p.open[label]
	text := r.Text
	if len(rest) > 0 {
		text = append(rest, text...)
	}
	var out bytes.Buffer
	for {
		line, after, found := bytes.Cut(text, []byte("\n"))
		if !found {
			break
		}
		p.label(&out, label)
		out.Write(line)
		out.WriteByte('\n')
		text = after
	}
	if !known {
		p.order = append(p.order, label)
	}
	p.open[label] = bytes.Clone(text)
	if out.Len() == 0 {
		return nil
	}
	_, err := p.w.Write(out.Bytes())
	return err
}

// end prints unterminated lines.
func (p *logPrinter) end() error {
	for _, label := range p.order {
		rest := p.open[label]
		if len(rest) == 0 {
			continue
		}
		var out bytes.Buffer
		p.label(&out, label)
		out.Write(rest)
		out.WriteByte('\n')
		if _, err := p.w.Write(out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (p *logPrinter) label(out *bytes.Buffer, label string) {
	if !p.plain {
		out.WriteString(label)
	}
}
