package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

const (
	terminalEvery = 200 * time.Millisecond
	plainEvery    = 10 * time.Second
	jsonEvery     = time.Second
)

// progressMode selects how progress is shown.
type progressMode int

const (
	progressPlain    progressMode = iota // a line every plainEvery
	progressTerminal                     // one line that is rewritten
	progressJSON                         // the job as JSON, a line each time
	progressNone
)

// progress shows the progress of a job.
type progress struct {
	out   *console
	mode  progressMode
	speed meter
	shown time.Time // time of the last printed line, or of the start
}

func newProgress(out *console, f watchFlags) *progress {
	p := &progress{out: out}
	switch {
	case f.json:
		p.mode = progressJSON
	case f.quiet || f.several:
		p.mode = progressNone
	case out.terminal:
		p.mode = progressTerminal
	}
	return p
}

// every is the polling interval.
func (p *progress) every() time.Duration {
	if p.mode == progressTerminal {
		return terminalEvery
	}
	return jsonEvery
}

// update shows the current state of a job.
func (p *progress) update(now time.Time, job *api.Job) {
	p.speed.add(now, job)
	if p.shown.IsZero() && p.mode == progressPlain {
		p.shown = now // a short job prints nothing
	}
	switch p.mode {
	case progressTerminal:
		p.out.Status(progressLine(job, &p.speed))
	case progressPlain:
		if !job.IsEnded() && now.Sub(p.shown) >= plainEvery {
			p.shown = now
			p.out.Printf("%s", progressLine(job, &p.speed))
		}
	case progressJSON:
		_ = printJSON(p.out, job) // there is no other output
	case progressNone:
	}
}

// progressLine formats a job's progress as one line.
func progressLine(job *api.Job, speed *meter) string {
	if text := numbersText(job.Pending()); text != "" {
		return fmt.Sprintf("job %d waits for job %s", job.ID, text)
	}
	stage := currentStage(job)
	parts := []string{fmt.Sprintf("job %d %s: %s of %s done", job.ID, stageText(job, &stage), countText(stage.Done), tasksText(job, &stage))}
	if stage.Running > 0 {
		parts = append(parts, countText(stage.Running)+" running")
	}
	if stage.Dead > 0 {
		parts = append(parts, countText(stage.Dead)+" failed")
	}
	if stage.Retried > 0 {
		parts = append(parts, countText(stage.Retried)+" retried")
	}
	if job.Status == api.JobHalted {
		parts = append(parts, "halted: no worker can take a task")
	}
	tasks, bytes := speed.rates()
	if tasks > 0 {
		parts = append(parts, rateText(tasks)+"/s")
	}
	if job.InputBytes > 0 {
		text := bytesText(job.ReadBytes) + " of " + bytesText(job.InputBytes)
		if bytes > 0 {
			text += ", " + bytesText(uint64(bytes)) + "/s"
		}
		parts = append(parts, text)
	}
	if eta, ok := timeLeft(job, stage, tasks, bytes); ok {
		parts = append(parts, "ETA "+durationText(eta))
	}
	return strings.Join(parts, " · ")
}

// tasksText is the number of tasks of a stage.
func tasksText(job *api.Job, stage *api.Stage) string {
	if job.Growing && stage.Role == api.RoleMap {
		return countText(stage.Tasks) + "+ tasks"
	}
	return plural(stage.Tasks, "task")
}

// currentStage is the first stage that has open or running tasks, or gets more, or the last.
func currentStage(job *api.Job) api.Stage {
	for _, s := range job.Stages {
		if s.Open+s.Running > 0 || job.Growing && s.Role == api.RoleMap {
			return s
		}
	}
	if len(job.Stages) == 0 {
		return api.Stage{}
	}
	return job.Stages[len(job.Stages)-1]
}

// stageText is the name of a stage, and its place if a job has several beside the one that commits, or checks.
func stageText(job *api.Job, stage *api.Stage) string {
	works := func(s *api.Stage) bool { return s.Role != api.RoleCommit && s.Role != api.RoleCheck }
	place, n := 0, 0
	for i := range job.Stages {
		s := &job.Stages[i]
		if works(s) {
			n++
		}
		if s.Name == stage.Name {
			place = n
		}
	}
	if n < 2 || !works(stage) {
		return stage.Name
	}
	return fmt.Sprintf("%s (stage %d of %d)", stage.Name, place, n)
}

// timeLeft estimates by bytes when they are known, because task sizes vary.
func timeLeft(job *api.Job, stage api.Stage, tasks, bytes float64) (time.Duration, bool) {
	var seconds float64
	switch {
	case job.Growing:
		return 0, false
	case bytes > 0 && job.InputBytes > job.ReadBytes:
		seconds = float64(job.InputBytes-job.ReadBytes) / bytes
	case tasks > 0 && stage.Open+stage.Running > 0:
		seconds = float64(stage.Open+stage.Running) / tasks
	default:
		return 0, false
	}
	const yearSeconds = 365 * 24 * 3600
	if seconds > yearSeconds {
		return 0, false
	}
	return max(time.Duration(seconds)*time.Second, time.Second), true
}

func rateText(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return countText(uint64(v + 0.5))
}

// meterSpan is the window of the rates: long enough to be steady, short enough to follow a change.
const meterSpan = 15 * time.Second

// meter measures the rate of a job.
type meter struct{ samples []sample }

type sample struct {
	at    time.Time
	done  uint64
	bytes uint64
}

func (m *meter) add(now time.Time, job *api.Job) {
	s := sample{at: now, bytes: job.ReadBytes}
	for _, stage := range job.Stages {
		s.done += stage.Done
	}
	m.samples = append(m.samples, s)
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= meterSpan {
		m.samples = m.samples[1:]
	}
}

// rates are tasks and bytes a second.
func (m *meter) rates() (tasks, bytes float64) {
	if len(m.samples) < 2 {
		return 0, 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	span := last.at.Sub(first.at).Seconds()
	if span <= 0 || last.done < first.done || last.bytes < first.bytes { // the counters fell: the job was retried
		return 0, 0
	}
	return float64(last.done-first.done) / span, float64(last.bytes-first.bytes) / span
}
