//go:build !linux

package keeper

import (
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Keeper runs one command at a time, in a process group. Start, Wait and Close must not be called concurrently; Stop may be
// called at any time.
type Keeper struct {
	// Nice is added to the nice value of commands. Set it before the first Start.
	Nice int
	// Temp is a folder for temporary files, which is empty when a command starts. It and its parent need not exist. It is removed by Close.
	// Commands find it only if their environment says where it is. Defaults to none. Set it before the first Start.
	Temp string
	Held *os.File // not used: there is no process but the command's

	outputs [streams]*os.File // reading ends
	output  func(Stream, *os.File)

	mu    sync.Mutex
	pid   int // 0: none
	grace *time.Timer
	until *time.Timer // of Command.Until; nil: none
	late  bool        // it was stopped by that
	err   error
}

// MachineMemory is 0: it is not known here.
func MachineMemory() uint64 { return 0 }

// Start starts a command. The caller then may close its standard input, and must call Wait.
func (k *Keeper) Start(c *Command) error {
	if err := Check(c.Confinement, k.Temp); err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close() //nolint:errcheck // only read from
	files := []uintptr{c.Stdin, c.Stdout, c.Stderr}
	if c.Stdin == 0 {
		files[0] = null.Fd()
	}
	for i := range k.outputs {
		if c.Stdout != 0 {
			break
		}
		reader, writer, err := os.Pipe()
		if err != nil {
			return err
		}
		defer writer.Close() //nolint:errcheck // written by the command
		k.outputs[i], files[1+i] = reader, writer.Fd()
	}
	k.output, k.late = c.Output, false
	attr := &syscall.ProcAttr{
		Dir: c.Dir, Env: slices.Concat(c.Env, c.EnvMore), Files: files, Sys: &syscall.SysProcAttr{Setpgid: true},
	}
	pid, err := syscall.ForkExec(c.Path, c.Argv, attr)
	if errors.Is(err, syscall.ENOEXEC) {
		pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", c.Path}, c.Argv[1:]...), attr)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pid, k.err = pid, err; err == nil && k.Nice != 0 {
		if own, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, pid, own+k.Nice) // it may have ended
		}
	}
	if err == nil && !c.Until.IsZero() {
		k.until = time.AfterFunc(time.Until(c.Until), func() {
			k.mu.Lock()
			k.late = true
			k.mu.Unlock()
			k.Stop(c.Grace)
		})
	}
	return nil
}

// Wait waits for the command, and kills the rest of its group. The error is that of starting it.
func (k *Keeper) Wait() (End, error) {
	for i, pipe := range k.outputs {
		if pipe != nil {
			k.output(Stream(i), pipe)
		}
	}
	k.outputs = [streams]*os.File{}
	if k.err != nil {
		return End{}, k.err
	}
	var end End
	var usage syscall.Rusage
	for {
		if _, err := syscall.Wait4(k.pid, &end.Status, 0, &usage); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = syscall.Kill(-k.pid, syscall.SIGKILL) // usually, nothing is left
	k.pid, end.Overdue = 0, k.late
	if k.until != nil {
		k.until.Stop()
		k.until = nil
	}
	if k.grace != nil {
		k.grace.Stop()
		k.grace = nil
	}
	if k.Temp != "" {
		_ = os.RemoveAll(k.Temp) // the next command gets a new one
	}
	end.Peak = uint64(max(0, usage.Maxrss)) //nolint:gosec // bytes, on macOS
	end.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	cpuTime.Add(int64(end.CPU))
	return end, nil
}

// Stop sends SIGTERM to the group, and SIGKILL after grace. With no command, it does nothing.
func (k *Keeper) Stop(grace time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pid == 0 || k.grace != nil {
		return
	}
	group := k.pid
	_ = syscall.Kill(-group, syscall.SIGTERM) // it may have ended
	k.grace = time.AfterFunc(grace, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.pid == group {
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
	})
}

// Extend sets another time until which the command may run, see Command.Until. With no command, it does nothing.
func (k *Keeper) Extend(until time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.until != nil && !k.late {
		k.until.Reset(time.Until(until))
	}
}

// Close removes the folder for temporary files. There is no command.
func (k *Keeper) Close() error { return os.RemoveAll(k.Temp) }

// Check reports whether commands can be confined so on this system, as a ConfinementError. It creates temp, if that is not empty.
func Check(c Confinement, temp string) error {
	if c != (Confinement{}) {
		return &ConfinementError{"confine commands (Linux only)", errors.ErrUnsupported}
	}
	if temp != "" {
		if err := os.MkdirAll(temp, 0o700); err != nil {
			return &ConfinementError{"create the folder for temporary files", err}
		}
	}
	return nil
}

// Pause is not implemented: the terminal stops only the group of the program.
func Pause() {}

// Continue is not implemented.
func Continue() {}
