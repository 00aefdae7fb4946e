package leader

import (
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
)

// When a worker is quarantined as slow: attempts of several stages, of whatever jobs, have taken five times as long on it as on other workers. One
// stage alone proves nothing: its tasks may lack something there that others do not need. The factor is above what different hardware explains: machines of
// one cluster differ by up to four times in their processors (Reiss et al., 2012, "Heterogeneity and dynamicity of clouds at scale", of Google's
// clusters), and virtual machines on shared hosts by two and a half times in their disks (Zaharia et al., 2008, "Improving MapReduce performance in
// heterogeneous environments"). A machine half as fast as others still helps; one at a tenth holds up each stage that it takes part in.
const (
	// SlowFactor is that of the run times.
	SlowFactor = 5
	// revokedFactor is that of an attempt that a second one has beaten. Its run time so far is a lower bound, and seldom five times that of the other one:
	// that begins after stragglerFactor medians, and takes about one.
	revokedFactor = stragglerFactor + 1

	slowMin    = time.Second // run time of a slow attempt at least: below, starting it costs too large a part
	slowTasks  = 8           // attempts that must have been compared
	slowStages = 2           // of so many stages
	stagesKept = 8           // stages of which evidence is kept
	stageTasks = 16          // attempts of one stage after which the older ones count half
	othersMin  = 3           // attempts on other workers, without which a comparison says little
	timesKept  = 64          // run times of a stage that are kept
)

// runTime is the run time of an attempt that has ended well.
type runTime struct {
	worker state.WorkerID
	millis uint64
	bytes  uint64 // of its input
}

// runTimes are the latest run times of a stage.
type runTimes struct {
	list []runTime
	next int // place of the oldest one, once the list is full
}

func (t *runTimes) add(r runTime) {
	if len(t.list) < timesKept {
		t.list = append(t.list, r)
		return
	}
	t.list[t.next] = r
	t.next = (t.next + 1) % timesKept
}

// compare reports whether an attempt was slow: its run time is SlowFactor times the median of those on other workers, where an attempt with a longer input
// may take longer. It is not known if there are too few of them, or if a slow one would be shorter than slowMin.
func (t *runTimes) compare(r runTime) (slow, known bool) {
	others, long, faster := 0, 0, 0
	for _, o := range t.list {
		if o.worker == r.worker {
			continue
		}
		others++
		limit := float64(SlowFactor * o.millis)
		if limit >= float64(slowMin.Milliseconds()) {
			long++
		}
		if o.bytes > 0 && r.bytes > o.bytes {
			limit *= float64(r.bytes) / float64(o.bytes)
		}
		if float64(r.millis) >= limit {
			faster++
		}
	}
	return 2*faster > others, others >= othersMin && 2*long > others
}

// speeds is how the attempts on a worker compare with those on others.
type speeds struct {
	stages  []stageSpeed // those of which attempts were compared last; at most stagesKept
	onTrial bool         // it was quarantined as slow: the next comparison decides
	inRow   int          // quarantines since a trial was passed
}

// stageSpeed is how many attempts of a stage were compared, and how many of them were slow.
type stageSpeed struct {
	key       sched.Key
	slow, all int
}

// add notes a comparison, and reports whether the worker is slow: most attempts were, in three quarters of the stages.
func (s *speeds) add(key sched.Key, slow bool) bool {
	if s.onTrial {
		s.onTrial = false
		if !slow {
			s.inRow = 0
		}
		return slow
	}
	at := slices.IndexFunc(s.stages, func(t stageSpeed) bool { return t.key == key })
	if at < 0 {
		if len(s.stages) == stagesKept {
			s.stages = slices.Delete(s.stages, 0, 1)
		}
		at = len(s.stages)
		s.stages = append(s.stages, stageSpeed{key: key})
	}
	t := &s.stages[at]
	if t.all++; slow {
		t.slow++
	}
	if t.all == stageTasks {
		t.all, t.slow = t.all/2, t.slow/2
	}
	all, stages := 0, 0
	for _, t := range s.stages {
		if all += t.all; 2*t.slow > t.all {
			stages++
		}
	}
	return slow && all >= slowTasks && stages >= slowStages && 4*stages >= 3*len(s.stages)
}

// observeRunTime compares an attempt that has ended well with those of other workers. It is one pass over a short list, for at most
// comparedMax attempts of a report.
func (c *Core) observeRunTime(w *worker, key sched.Key, r runTime) {
	stages := c.runTimes[key.Job]
	if stages == nil {
		stages = map[uint32]*runTimes{}
		c.runTimes[key.Job] = stages
	}
	t := stages[key.Stage]
	if t == nil {
		t = &runTimes{}
		stages[key.Stage] = t
	}
	if slow, known := t.compare(r); known {
		c.observeSpeed(w, key, slow)
	}
	t.add(r)
}

// comparedMax bounds the attempts of a report that are compared: those in one report are short.
const comparedMax = 16

// observeRevoked compares an attempt that is revoked with the one of the same task that has ended before it. If it has not run for long, it proves nothing.
func (c *Core) observeRevoked(w *worker, l *lease) {
	out, done := c.machine.Job(l.Job).Stages[l.Stage].Output(l.task)
	if ran := c.now.UnixMilli() - l.begun; done && out.Worker != 0 && l.begun > 0 && ran >= max(revokedFactor*int64(out.Millis), slowMin.Milliseconds()) {
		c.observeSpeed(w, l.Key, true)
	}
}

// observeSpeed notes whether an attempt was slow.
func (c *Core) observeSpeed(w *worker, key sched.Key, slow bool) {
	if w.quarantine.active() { // what it was leased before
		return
	}
	if w.quarantine.speeds.add(key, slow) {
		c.quarantineSlow(w)
	}
}
