package state

// FeatureLevel is the highest feature level that this program reads. The level of a cluster is part of its state: it defines what
// nodes may write to the log and to snapshots, and is raised (RaiseLevel) once every node can read it. It never falls.
//
//	level | since  | allows
//	0     | v0.1   | positional records: version 1 of entries and snapshots
//	1     | v0.3   | tagged records: version 2; stage plans, lost outputs, where and when a task ran
//	2     | v0.4   | input in several entries, versions of input files, what failed attempts wrote last, environments, access tables, audit records, lists of several columns, limits of failed tasks, delays, resources, order between jobs, submissions of several jobs, inputs that grow, locks, several files in a task, checks of what the spool keeps
const FeatureLevel = 2

// Level is the feature level that a cluster needs to run the job. Below it, a field whose absence would change what the job does could
// not be written.
func (s *Spec) Level() uint32 {
	if s.Protocol() == 2 || s.GraceMS > 0 || s.MaxFails != nil || s.RetryDelayMS|s.DelayMS > 0 || s.MaxRunning > 0 || s.NoSecond ||
		len(s.Resources)+len(s.After)+len(s.Locks) > 0 || s.FailOnConflict || s.Deferred != nil || s.Input.Growing || s.Input.packed() {
		return 2
	}
	return 0
}
