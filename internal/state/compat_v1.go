package state

import "slices"

// Version 1 of log entries and snapshots, which releases before feature level 1 read and write. Its records are those of record.go, cut
// off after the fields that it has; here is what it has otherwise. It is frozen. It is read for ever, and written while the cluster's
// level is 0.

func (c *codec) commandV1(kind int, m *command) {
	switch kind {
	case cmdSubmit:
		c.stringValue(&m.key)
		c.stringValue(&m.uid)
		c.spec(made(&m.spec))
		if c.d != nil {
			m.sum = m.spec.RequestSum(m.spec.User)
		}
	case cmdStop, cmdRetry, cmdForget:
		c.stringValue(&m.key)
		numberValue(c, &m.job)
		numberValue(c, &m.fence)
	case cmdDone:
		numberValue(c, &m.worker)
		numberValue(c, &m.job)
		numberValue(c, &m.stage)
		c.completions(&m.completions)
	case cmdFailed:
		numberValue(c, &m.job)
		numberValue(c, &m.stage)
		numberValue(c, &m.task)
		c.failure(made(&m.failure))
	case cmdRegister:
		c.stringValue(&m.key)
		c.workerInfo(made(&m.info))
	case cmdWorker:
		c.stringValue(&m.key)
		numberValue(c, &m.worker)
		numberValue(c, &m.status)
	default:
		c.check(func() bool { return false })
	}
}

// stageNameV1 is the stage of a fact: in version 1 the number of its role, and the name of each stage is that of its role.
func (c *codec) stageNameV1(f *Fact) {
	var role StageRole
	for r := range stageRoles {
		if r.String() == f.Stage {
			role = r
		}
	}
	numberValue(c, &role)
	if c.d != nil && (f.Kind == StageStarted || f.Kind == TaskDied) {
		f.Stage = role.String()
	}
}

// currentV1 is the number of the one stage that runs, or that ran last: in version 1 the plan is a line. It is not used when it is read.
func (c *codec) currentV1(j *Job) {
	current := uint64(len(j.Stages) - 1)
	if i := j.commitStage(); i >= 0 && j.Stages[i].Action != Commit {
		current = uint64(i) // it cleans up, and the others are as they were
	} else if i := slices.IndexFunc(j.Stages, func(s *Stage) bool { return !s.complete() }); i >= 0 {
		current = uint64(i)
	}
	numberValue(c, &current)
}
