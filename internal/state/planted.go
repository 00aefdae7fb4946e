//go:build planted

package state

// ForgetDone opens a task of each live job again whose completion the log has: a bug, which the simulator must find.
func (m *Machine) ForgetDone() {
	for _, id := range m.live {
		job := m.jobs[id]
		for i := range job.Stages {
			if job.Ready(i) {
				m.forgetDone(job.Stages[i])
			}
		}
	}
}

func (m *Machine) forgetDone(stage *Stage) {
	for n, p := range stage.all() {
		for k, status := range p.status {
			if status == TaskDone {
				stage.writable(n*pageTasks+uint64(k), m.epoch).status[k] = TaskOpen
				stage.Done--
				break
			}
		}
	}
}
