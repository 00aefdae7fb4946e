package keeper

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Command is a program to run.
type Command struct {
	Path string // relative to Dir, if it is
	Argv []string
	Dir  string // empty: this process's
	// Env is the environment shared by many commands: the keeper gets it again only when the slice changes.
	Env []string
	// EnvMore is appended to Env.
	EnvMore []string
	Stdin   uintptr // descriptor; 0: /dev/null
	// Output gets the reading end of a pipe when the command has written to it, and must close it. Wait calls it. A command that
	// writes nothing costs the caller no pipe. If the pipe does not end soon after the command, a process of others has it open.
	Output func(s Stream, pipe *os.File)
	// Stdout and Stderr are descriptors that the command gets instead of pipes, and then Stdin is one too. 0: pipes.
	Stdout, Stderr uintptr
	// Until is when the keeper stops the command, as Stop does with Grace, unless Extend has set a later time: also if this process is stopped
	// (SIGSTOP) or hangs. The time for which the machine is suspended counts (Linux). Zero: never.
	Until time.Time
	Grace time.Duration
	Confinement
	// User runs the command, which only root can set for others. Nil: this process's.
	User   *syscall.Credential
	Memory uint64 // bytes that all its processes may use; 0: not limited
}

// Confinement is what a command, and all that it starts, may not do.
type Confinement struct {
	NoNewPrivileges bool // set-user-ID programs such as sudo give no privileges
	Sandbox         bool // it can write to its temporary files only, see Keeper.Temp
	NoNetwork       bool // it has no sockets
}

// ConfinementError is the error of Start if a command cannot be confined on this system.
type ConfinementError struct {
	What string
	Err  error
}

func (e *ConfinementError) Error() string { return e.What + ": " + e.Err.Error() }

func (e *ConfinementError) Unwrap() error { return e.Err }

// Stream is an output of a command.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota
	Stderr
	streams
)

// End is the end of a command.
type End struct {
	Status     syscall.WaitStatus
	Left       int           // processes that the command left behind, and that were killed
	Stuck      int           // processes that do not end, or 0; the next command of the keeper starts once they are gone
	StuckPID   int           // one of them
	OverMemory uint64        // bytes in use when the limit was exceeded, or 0
	CPU        time.Duration // of all processes
	Peak       uint64        // bytes of the largest resident set of a process; 0: smaller than that of the keeper
	Overdue    bool          // it was stopped because of Command.Until
}

// cpuTime is the sum of End.CPU.
var cpuTime atomic.Int64 //nolint:gochecknoglobals // a metric of the process

// CPUTime returns the CPU time of all commands that have ended, with that of the processes that they started.
func CPUTime() time.Duration { return time.Duration(cpuTime.Load()) }

// ErrKilled is the error of a command whose keeper was killed.
var ErrKilled = errors.New("the keeper of the command was killed")
