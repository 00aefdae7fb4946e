package cli

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

func (a *app) logsCommand() *cobra.Command {
	var r readFlags
	var q api.LogQuery
	var since string
	var times bool
	tasks := scope{tasks: true}
	cmd := &cobra.Command{
		Use: "logs N[/STAGE/INDEX]…", Short: "Print the logs (stderr) of a job's tasks, or of one task",
		Long: `Print the logs (stderr) of a job's tasks, or of one task.

Each line of a job is prefixed with its task. Lines of an attempt that did not win (it failed, or its worker was lost)
also show the attempt number: 12/map/7#1.

Workers keep the logs. The leaders keep the last 64 KiB of the log and of the standard output of failed attempts, of the first and
the last ones of a job: their standard output is marked "stdout", and their logs "kept" if the worker no longer has them. If the log
of a worker cannot be read, because it is away, standard error says which tasks' logs it has, and the exit code is 5.

--tail keeps the last lines of each task, of those that are there; with -f, what is written after them follows. --failed with -f prints
the log of a task when it has failed. --since takes a duration, such as 10m, or a time, such as 15:04, 2006-01-02 15:04 or
2006-01-02T15:04:05Z; what workers of earlier versions logged, which did not note times, is printed as well.

The logs of several jobs are printed one after another.

` + selectorsHelp,
		Example: `  bridgefour logs last -f --tail 20
  bridgefour logs 7 --failed --tail 5
  bridgefour logs 7/map/3 --since 10m --timestamps`,
		Args:              tasks.args,
		ValidArgsFunction: a.completeJobs(tasks),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if q.Since, err = parseSince(cmd, since, time.Now()); err != nil {
				return err
			}
			if q.Tail < 0 || q.Tail == 0 && a.typed["tail"] {
				return usagef(cmd, "--tail is %d: want at least 1; '--since 0s' prints only what is written from now on", q.Tail)
			}
			patience := followRetryFor
			if !q.Follow {
				patience = 0
			}
			c, err := a.connect(r.cluster, patience)
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), cmd, tasks, args, c, func(s subject) error {
				q.Job, q.OneTask, q.Stage, q.Index = s.job, s.stage != "", s.stage, s.index
				out := &logPrinter{w: a.stdout, prefix: !q.OneTask || s.of > 1, times: times, open: map[string][]byte{}}
				return a.printLogs(cmd.Context(), c, q, out, r.json)
			})
		},
	}
	r.add(cmd)
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "continue until the job has ended")
	cmd.Flags().IntVar(&q.Tail, "tail", 0, "only the last `lines` of each task (default: all)")
	cmd.Flags().StringVar(&since, "since", "", "only what was written since a `time`, or so long ago")
	cmd.Flags().BoolVar(&q.Failed, "failed", false, "only of tasks that have failed")
	cmd.Flags().BoolVarP(&times, "timestamps", "t", false, "begin each line with the time when it was written, to about 10 ms")
	return cmd
}

// parseSince parses what --since takes: a duration before now, or a time, of this machine's zone unless it names one. Empty: the zero time.
func parseSince(cmd *cobra.Command, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	if of, err := time.ParseInLocation("15:04", text, now.Location()); err == nil { // of today
		return time.Date(now.Year(), now.Month(), now.Day(), of.Hour(), of.Minute(), 0, 0, now.Location()), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usagef(cmd, "--since %q: want a duration, such as 10m, or a time, such as 15:04, 2006-01-02 15:04 or 2006-01-02T15:04:05Z", text)
}

func (a *app) printLogs(ctx context.Context, c *client.Client, q api.LogQuery, out *logPrinter, asJSON bool) error {
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
			err = printJSON(a.stdout, record.Readable())
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
	times  bool // begin each line with its time
	open   map[string][]byte
	order  []string // of open, for a deterministic end
}

func (p *logPrinter) add(r *api.LogRecord) error {
	label := ""
	if of := r.Label(); of != r.Task || p.prefix {
		label = of + ": "
	}
	stamp := ""
	if p.times && r.Time != nil {
		stamp = r.Time.Local().Format("2006-01-02T15:04:05.000Z07:00 ")
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
		out.WriteString(stamp)
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
