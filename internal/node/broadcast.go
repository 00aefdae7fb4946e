package node

import "sync/atomic"

// news tells everybody who waits that there is some. The zero value is not ready for use.
type news struct{ ch atomic.Pointer[chan struct{}] }

func newNews() *news {
	n := &news{}
	ch := make(chan struct{})
	n.ch.Store(&ch)
	return n
}

// next is closed with the next news. Who takes it before looking at what it is about misses nothing.
func (n *news) next() <-chan struct{} { return *n.ch.Load() }

// tell is for one goroutine.
func (n *news) tell() {
	ch := make(chan struct{})
	close(*n.ch.Swap(&ch))
}
