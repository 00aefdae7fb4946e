package leader

// Begun is closed when this node first knows whether it leads, and so has read what its log held: before that it would deny
// jobs that it will know in a moment.
func (l *Leader) Begun() <-chan struct{} { return l.begun }
