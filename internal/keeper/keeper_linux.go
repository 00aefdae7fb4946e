package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Keeper runs one command at a time. Start, Wait and Close must not be called concurrently; Stop and Extend may be called at any time.
type Keeper struct {
	// Nice is added to the nice value of the process and its commands. Set it before the first Start.
	Nice int
	// Temp is a folder for temporary files, which is empty when a command starts. It and its parent need not exist. It is removed by Close.
	// Commands find it only if their environment says where it is. Defaults to none. Set it before the first Start.
	Temp string
	// Held is a file that the process keeps open: a lock on it lasts until the process, and all that it has started, has ended. Defaults to none. Set it before the first Start.
	Held *os.File

	buf      []byte // for answers
	oob      []byte
	dir      string // what the process has, of the last commands
	env      []string
	user     *syscall.Credential
	frames   encoder
	confined Confinement
	output   func(Stream, *os.File) // of the last command

	mu     sync.Mutex // guards writing, and what Stop uses
	pid    int        // 0: no process
	socket int        // blocking: a thread that waits costs less than the runtime's poller, which wakes several
	id     uint32     // of the last command
	busy   bool
}

// keepers are the live keepers of this process. The lock is held while one is started, so that it is not taken for an orphan.
var keepers struct { //nolint:gochecknoglobals // children belong to the process
	sync.Mutex
	live map[int]*Keeper
}

// Start starts a command. The caller then may close its standard input, and must call Wait.
func (k *Keeper) Start(c *Command) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pid != 0 && k.confined != c.Confinement {
		k.ended() // what is confined remains so
	}
	if k.pid != 0 {
		err := k.send(c)
		if !errors.Is(err, unix.EPIPE) {
			return err
		}
		k.ended() // it was killed since the last command
	}
	if err := k.spawn(); err != nil {
		return err
	}
	if err := k.confine(c.Confinement); err != nil {
		k.ended()
		return err
	}
	return k.send(c)
}

// confine confines the process before its first command.
func (k *Keeper) confine(c Confinement) error {
	e := &k.frames
	e.buf = e.buf[:0]
	e.begin(kindConfine)
	for _, on := range []bool{c.NoNewPrivileges, c.Sandbox, c.NoNetwork} {
		n := uint64(0)
		if on {
			n = 1
		}
		e.number(n)
	}
	e.text(k.Temp)
	e.end()
	if err := k.write(e.buf, nil); err != nil {
		return err
	}
	a, _, err := k.read()
	if err != nil {
		return fmt.Errorf("start a keeper: %w", err)
	}
	k.confined = c
	if a.Errno == 0 {
		return nil
	}
	what := map[uint32]string{
		partTemp:       fmt.Sprintf("create the folder for temporary files %q", k.Temp),
		partPrivileges: "start without new privileges",
		partSandbox:    "start in a sandbox (Landlock, Linux 6.2 or newer)",
		partNetwork:    "start without a network (seccomp)",
	}[a.Status]
	return &ConfinementError{What: what, Err: syscall.Errno(a.Errno)}
}

// Check reports whether commands can be confined so on this system, as a ConfinementError.
func Check(c Confinement, temp string) error {
	k := Keeper{Temp: temp}
	err := k.spawn()
	if err == nil {
		err = k.confine(c)
	}
	return errors.Join(err, k.Close())
}

func (k *Keeper) spawn() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("create socket of a keeper: %w", err)
	}
	defer unix.Close(pair[1]) //nolint:errcheck // the keeper's copy
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, unix.Close(pair[0]))
	}
	defer null.Close() //nolint:errcheck // not written to
	held := null.Fd()
	if k.Held != nil {
		held = k.Held.Fd()
	}
	keepers.Lock()
	defer keepers.Unlock()
	if keepers.live == nil {
		// If a keeper is killed, its command's processes become children of this process: see clearOrphans.
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // since Linux 3.4
		keepers.live = map[int]*Keeper{}
	}
	attr := &syscall.ProcAttr{
		// The race detector, in tests, otherwise waits for a second before the process ends.
		Env:   []string{"GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", "GORACE=atexit_sleep_ms=0"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(pair[1]), held},
		// A keeper that its command has stopped must notice the end of this process.
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGCONT},
	}
	argv := []string{argv0, strconv.Itoa(k.Nice)}
	pid, err := syscall.ForkExec("/proc/self/exe", argv, attr) // also if the file was replaced
	if errors.Is(err, syscall.ENOENT) {
		var path string
		if path, err = os.Executable(); err == nil {
			pid, err = syscall.ForkExec(path, argv, attr)
		}
	}
	if errors.Is(err, syscall.EBADF) {
		err = syscall.EMFILE // the descriptors of the child are first moved up, beyond the limit
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start a keeper: %w", err), unix.Close(pair[0]))
	}
	k.pid, k.socket, k.env, k.dir = pid, pair[0], nil, ""
	keepers.live[pid] = k
	return nil
}

// ended forgets a process that has ended or will, because the socket is closed.
func (k *Keeper) ended() {
	_ = unix.Kill(k.pid, unix.SIGCONT)        // its command may have stopped it
	_ = unix.Shutdown(k.socket, unix.SHUT_WR) // closed, it would mean to the keeper that this process was killed
	waitFor(k.pid)
	_ = unix.Close(k.socket)
	keepers.Lock()
	defer keepers.Unlock()
	if keepers.live[k.pid] == k {
		delete(keepers.live, k.pid)
	}
	k.pid = 0
}

func waitFor(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (k *Keeper) send(c *Command) error {
	e := &k.frames
	e.buf = e.buf[:0]
	if len(k.env) != len(c.Env) || len(c.Env) == 0 || &k.env[0] != &c.Env[0] || k.dir != c.Dir || k.user != c.User {
		e.begin(kindJob)
		e.text(c.Dir)
		e.texts(c.Env)
		var users []uint32
		if c.User != nil {
			users = append([]uint32{c.User.Uid, c.User.Gid}, c.User.Groups...)
		}
		e.number(uint64(len(users)))
		for _, id := range users {
			e.number(uint64(id))
		}
		e.end()
	}
	k.id++
	e.begin(kindStart)
	e.number(uint64(k.id))
	e.number(c.Memory)
	files := make([]int, 0, 1+streams)
	switch {
	case c.Stdout != 0:
		files = append(files, int(c.Stdin), int(c.Stdout), int(c.Stderr))
	case c.Stdin != 0:
		files = append(files, int(c.Stdin))
	}
	e.number(uint64(len(files)))
	e.number(untilOf(c.Until))
	e.number(uint64(max(0, c.Grace.Milliseconds())))
	e.text(c.Path)
	e.texts(c.Argv)
	e.texts(c.EnvMore)
	e.end()
	if len(e.buf) > frameMax {
		return syscall.E2BIG
	}
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	if err := k.write(e.buf, rights); err != nil {
		k.env = nil
		return err
	}
	k.dir, k.env, k.user, k.output, k.busy = c.Dir, c.Env, c.User, c.Output, true
	return nil
}

// write sends a message, and descriptors with its first byte.
func (k *Keeper) write(text, oob []byte) error {
	for len(text) > 0 {
		n, err := unix.SendmsgN(k.socket, text, oob, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET):
			return unix.EPIPE
		case err != nil:
			return err
		}
		text, oob = text[n:], nil
	}
	return nil
}

// Wait waits until nothing is left of the command. The error is that of starting it, unwrapped, or ErrKilled.
func (k *Keeper) Wait() (End, error) {
	lost := false
	a, output, err := k.read()
	for ; err == nil && a.Stream > 0; a, output, err = k.read() {
		if output == nil {
			lost = true // there is no descriptor left for it; the command's next write fails
			continue
		}
		k.output(a.Stream-1, output)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.busy = false
	if err != nil {
		pid := k.pid
		k.ended()
		return End{Left: clearOrphans(pid)}, ErrKilled
	}
	switch {
	case a.Errno != 0:
		return End{}, syscall.Errno(a.Errno)
	case lost:
		return End{}, unix.EMFILE
	}
	cpuTime.Add(int64(a.CPU)) //nolint:gosec // nanoseconds
	return End{
		Status: syscall.WaitStatus(a.Status), Left: int(a.Left), Stuck: int(a.Stuck), StuckPID: int(a.StuckPID),
		OverMemory: a.OverMemory, CPU: time.Duration(a.CPU), Peak: a.Peak, Overdue: a.Overdue, //nolint:gosec // nanoseconds
	}, nil
}

// read reads an answer, and the descriptor that may come with its first byte.
func (k *Keeper) read() (a answer, output *os.File, err error) {
	if k.buf == nil {
		k.buf, k.oob = make([]byte, answerSize), make([]byte, unix.CmsgSpace(4))
	}
	for got := 0; got < answerSize; {
		n, oobn, _, _, err := unix.Recvmsg(k.socket, k.buf[got:], k.oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n == 0:
			return a, output, errors.Join(err, io.ErrUnexpectedEOF)
		}
		got += n
		if oobn > 0 {
			output = received(k.oob[:oobn])
		}
	}
	a.decode(k.buf)
	return a, output, nil
}

// received returns the pipe that came with a message; nil: none, because too many files are open.
func received(oob []byte) *os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	_ = unix.SetNonblock(fds[0], true) // makes os.NewFile use the poller
	return os.NewFile(uintptr(fds[0]), "output")
}

// Stop sends SIGTERM to all processes of the command, and SIGKILL after grace. With no command, it does nothing.
func (k *Keeper) Stop(grace time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.busy {
		return
	}
	var e encoder
	e.begin(kindStop)
	e.number(uint64(k.id))
	e.number(uint64(max(0, grace.Milliseconds())))
	e.end()
	_ = unix.Kill(k.pid, unix.SIGCONT) // its command may have stopped it
	_ = k.write(e.buf, nil)            // if the keeper was killed, Wait says so
}

// Extend sets another time until which the command may run, see Command.Until. With no command, it does nothing.
func (k *Keeper) Extend(until time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.busy {
		return
	}
	var e encoder
	e.begin(kindExtend)
	e.number(uint64(k.id))
	e.number(untilOf(until))
	e.end()
	_ = k.write(e.buf, nil) // if the keeper was killed, Wait says so
}

// Close ends the keeper, and what it runs. It removes the folder for temporary files, and its parent if that is empty.
func (k *Keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pid == 0 {
		return nil
	}
	k.ended()
	if k.Temp != "" {
		_ = os.Remove(k.Temp) // in a sandbox, the keeper could not
		_ = os.Remove(filepath.Dir(k.Temp))
	}
	return nil
}

// Pause stops the processes of all commands, until Continue.
func Pause() { signalAll(kindPause) }

// Continue continues the processes of all commands.
func Continue() { signalAll(kindContinue) }

func signalAll(kind byte) {
	keepers.Lock()
	live := make([]*Keeper, 0, len(keepers.live))
	for _, k := range keepers.live {
		live = append(live, k)
	}
	keepers.Unlock()
	var e encoder
	e.begin(kind)
	e.end()
	for _, k := range live {
		k.mu.Lock()
		if k.busy {
			_ = k.write(e.buf, nil) // if the keeper was killed, Wait says so
		}
		k.mu.Unlock()
	}
}

// clearOrphans kills the processes of a keeper that was killed. They are children of this process now: those in the keeper's
// session, and those in a session of their own. Other children of this process are in its session.
func clearOrphans(session int) (left int) {
	keepers.Lock()
	defer keepers.Unlock()
	own := os.Getpid()
	ownSession, err := unix.Getsid(0)
	if err != nil {
		return 0
	}
	var k killer
	for k.passes < passesExit {
		orphans := below(processes(), func(p *proc) bool {
			return p.parent == own && keepers.live[p.pid] == nil && (p.session == session || p.session != ownSession)
		})
		if len(orphans) == 0 {
			break
		}
		k.pass(orphans)
		time.Sleep(time.Millisecond)
		for i := range orphans {
			if orphans[i].parent == own {
				_, _ = unix.Wait4(orphans[i].pid, nil, unix.WNOHANG, nil) // if it has not ended, the next pass does it
			}
		}
	}
	return len(k.killed)
}
