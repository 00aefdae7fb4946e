package program

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"
)

// killGrace is the time between SIGTERM and SIGKILL.
const killGrace = 2 * time.Second

// stopReason says why a command was stopped.
type stopReason int

const (
	notStopped stopReason = iota
	stopCanceled
	stopTimeout
	stopMemory
	stopInput // its input could not be read
)

// process is the running command of a slot. Timers and watchers on other goroutines signal it; they must not once its number may
// belong to another process.
type process struct {
	mu     sync.Mutex
	pid    int // also of its group; 0: not running
	handle int // pidfd, closed by wait; -1: not supported
	reason stopReason
	rss    uint64 // that exceeded the limit
	grace  *time.Timer
}

func (p *process) started(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid, p.reason = pid, notStopped
}

// stop sends SIGTERM to the group, and SIGKILL after killGrace.
func (p *process) stop(reason stopReason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 || p.reason != notStopped {
		return
	}
	p.reason = reason
	pid := p.pid
	_ = syscall.Kill(-pid, syscall.SIGTERM) // the process may be a zombie already
	p.grace = time.AfterFunc(killGrace, func() { p.kill(pid) })
}

func (p *process) kill(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == pid {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// outOfMemory kills the group at once: after SIGTERM it could grow further.
func (p *process) outOfMemory(rss uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 || p.reason != notStopped {
		return
	}
	p.reason, p.rss = stopMemory, rss
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
}

// wait waits for the process and kills the rest of its group. quiet is false if part of that may still be running.
func (p *process) wait() (status syscall.WaitStatus, reason stopReason, quiet bool, err error) {
	pid := p.pid
	status, reaped, err := waitExit(pid, p.handle)
	p.mu.Lock()
	reason = p.reason
	if p.grace != nil {
		p.grace.Stop()
		p.grace = nil
	}
	// A zombie keeps its number, so the group cannot be another one.
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	p.pid = 0
	if !reaped {
		status, err = reap(pid)
	}
	p.mu.Unlock()
	return status, reason, groupEnded(pid), err
}

func reap(pid int) (status syscall.WaitStatus, err error) {
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return status, err
		}
	}
}

// groupEnded waits briefly for killed processes to end.
func groupEnded(group int) bool {
	const tries = 1000
	for range tries {
		if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) || groupMemory(group).running == 0 {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// memoryUse of a process group.
type memoryUse struct {
	running int // processes that are not zombies
	rss     uint64
}

// watchMemory kills the group if it uses more than bytesMax, until ctx ends.
func (p *process) watchMemory(ctx context.Context, pid int, bytesMax uint64) {
	const interval = 50 * time.Millisecond
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if use := groupMemory(pid); use.rss > bytesMax {
				p.outOfMemory(use.rss)
				return
			}
		}
	}
}
