package keeper

import (
	"encoding/binary"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// argv0 marks a keeper. It has one argument, its nice value.
	argv0       = "bridgefour-keeper"
	processName = "b4-keeper"
	// socketFD is the socket to the process that started the keeper.
	socketFD = 3

	reapInterval   = time.Second // for orphans that end while the command runs
	memoryInterval = 50 * time.Millisecond
	clearTimeout   = 5 * time.Second // then the processes are reported as stuck
	passesStuck    = 30              // that takes at least: after fewer the keeper itself was stopped, or got no processor
	childrenPasses = 100             // in each pass, after the first ones
	passesExit     = 1000            // about 10 s: a keeper without a worker does not wait for stuck processes forever
)

// A keeper runs during the initialization of this package, before that of most others: it stays small, and its only goroutine is
// locked to the main thread, whose end is what the parent-death signal of commands refers to.
func init() { //nolint:gochecknoinits // see above
	if len(os.Args) != 2 || os.Args[0] != argv0 {
		return
	}
	if kind, err := unix.GetsockoptInt(socketFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return
	}
	s := server{socket: socketFD}
	s.prepare(os.Args[1])
	s.run()
	os.Exit(0)
}

// server is the keeper's process.
type server struct {
	socket  int
	in      []byte // received, not decoded
	files   []int  // received with a start that is not complete
	dir     string
	env     []string
	user    *syscall.Credential // nil: this process's
	envJob  int                 // entries of env that are of the job
	argv    []string
	command *running // nil: none
	waiting *start   // until stuck processes are gone
	stuck   bool     // processes of the last command are left
	killer  killer   // of the stuck processes
	group   group
	reply   []byte
	temp    string    // folder for temporary files; empty: none
	entries [128]byte // for tempEmpty
}

// start is a request to start a command. Its strings are valid until the next one.
type start struct {
	id     uint32
	memory uint64
	path   string
	files  []int  // none: /dev/null and pipes; one: standard input, and pipes
	until  uint64 // as bootTime; 0: never
	grace  time.Duration
}

// close closes its descriptors: the command has copies.
func (r *start) close() {
	for _, fd := range r.files {
		_ = unix.Close(fd)
	}
}

// running is the command that runs.
type running struct {
	start
	pid, handle int           // handle: pidfd; -1: not supported
	outputs     [streams]pipe // that nothing was written to yet
	ended       bool
	stopping    bool
	deadline    time.Time // of a stop
	sample      time.Time // of memory, next
	grouped     bool      // in the control group, which limits its memory
	kills       uint64    // of the group, before it
	answer      answer
}

// pipe is an output. The keeper has both ends, so that the command's end does not wake it twice; they are -1 once it is passed on.
type pipe struct{ reader, writer int }

func (p *pipe) close() {
	_ = unix.Close(p.reader)
	_ = unix.Close(p.writer)
	*p = pipe{-1, -1}
}

// prepare sets what the commands inherit.
func (s *server) prepare(nice string) {
	if n, _ := strconv.Atoi(nice); n != 0 {
		own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err == nil {
			const base = 20 // the system call returns 20 minus the value
			value := min(base-own+n, 19)
			// Of this thread, so that commands inherit it: one whose value is set later may have started a process by then.
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, value)
			// A session may be scheduled as a group, in which nice values only matter among its processes.
			_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(value)), 0)
		}
	}
	must := func(err error) {
		if err != nil {
			os.Exit(1)
		}
	}
	must(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	// Commands of the same user must not look into it, nor change it: it goes on to run those of other jobs. They are closed until they call exec.
	must(unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
	name := []byte(processName + "\x00")
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0) // for ps
	// The process that started the worker may have left descriptors open, signals ignored and others blocked.
	if unix.CloseRange(socketFD, 1<<31, unix.CLOSE_RANGE_CLOEXEC) != nil { // kernel before 5.11
		for fd := socketFD; fd < 1<<10; fd++ {
			unix.CloseOnExec(fd)
		}
	}
	signal.Ignore() // else each fork resets the runtime's 60 handlers
	for sig := unix.Signal(1); sig < 65; sig++ {
		resetSignal(sig)
	}
	must(unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil))
}

// resetSignal resets an ignored signal; a handled one is reset by exec. The runtime need not handle SIGCHLD.
func resetSignal(sig unix.Signal) {
	var action struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	call := func(set, get unsafe.Pointer) bool {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(set), uintptr(get), unsafe.Sizeof(action.mask), 0, 0)
		return errno == 0
	}
	const ignored = 1
	if call(nil, unsafe.Pointer(&action)) && (action.handler == ignored || sig == unix.SIGCHLD) {
		action.handler = 0
		call(unsafe.Pointer(&action), nil)
	}
}

// run works until the socket is closed.
func (s *server) run() {
	polled := make([]unix.PollFd, 2+streams) // the socket, the command, its outputs
	for i := range polled {
		polled[i].Events = unix.POLLIN
	}
	polled[0].Fd = int32(s.socket)
	for {
		c := s.command
		for i := range polled {
			polled[i].Revents = 0
			switch {
			case i == 0:
			case c == nil || i == 1 && c.ended:
				polled[i].Fd = -1
			case i == 1:
				polled[i].Fd = int32(c.handle) //nolint:gosec // a descriptor
			default:
				polled[i].Fd = int32(c.outputs[i-2].reader) //nolint:gosec // a descriptor
			}
		}
		poll(polled, s.timeout())
		if c != nil {
			s.passOutputs(c, polled[2:], false)
		}
		if polled[0].Revents != 0 && !s.receive() {
			break
		}
		s.stopOverdue()
		if s.command != nil {
			s.watch()
		}
		if s.stuck {
			s.retryClear()
		}
	}
	var k killer
	for !s.clear(&k) && k.passes < passesExit { // clear waits
	}
	s.group.remove()
	s.removeTemp()
}

// passOutputs passes on the outputs that something was written to. At the end of the command also those that another process has open.
func (s *server) passOutputs(c *running, polled []unix.PollFd, end bool) {
	for i, p := range polled {
		held := end && p.Fd >= 0 && p.Revents&unix.POLLHUP == 0
		if p.Revents&unix.POLLIN != 0 || held {
			s.reply = (&answer{ID: c.id, Stream: Stream(i) + 1}).append(s.reply[:0]) //nolint:gosec // two
			rights := unix.UnixRights(c.outputs[i].reader)
			_ = unix.Sendmsg(s.socket, s.reply, rights, nil, unix.MSG_NOSIGNAL) // if the other end is closed, the next poll says so
		} else if !end {
			continue
		}
		c.outputs[i].close()
	}
}

// passLast passes on what was written last.
func (s *server) passLast(c *running) {
	var polled [streams]unix.PollFd
	for i := range polled {
		o := &c.outputs[i]
		_ = unix.Close(o.writer)
		o.writer = -1
		polled[i] = unix.PollFd{Fd: int32(o.reader), Events: unix.POLLIN} //nolint:gosec // a descriptor
	}
	poll(polled[:], 0)
	s.passOutputs(c, polled[:], true)
}

// poll waits for an event, first without telling the Go runtime: it would wake its monitor thread each time, which costs a tenth of a
// short command.
func poll(polled []unix.PollFd, timeout int) {
	const short = 20
	first := timeout
	if timeout < 0 || timeout > short {
		first = short
	}
	wait := unix.NsecToTimespec(int64(first) * int64(time.Millisecond))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&polled[0])), uintptr(len(polled)), uintptr(unsafe.Pointer(&wait)), 0, 0, 0) // arm64 has no poll
	if n == 0 && errno == 0 && first != timeout {
		_, _ = unix.Poll(polled, timeout) // an interruption is a wake-up
	}
}

// timeout returns the poll timeout in milliseconds.
func (s *server) timeout() int {
	c := s.command
	d := reapInterval
	switch {
	case s.stuck:
		d = 100 * time.Millisecond
	case c == nil:
		return -1
	case c.handle < 0, c.stopping && c.ended:
		d = 5 * time.Millisecond
	case c.stopping:
		d = max(0, min(d, time.Until(c.deadline)+time.Millisecond))
	}
	if c != nil && c.memory > 0 {
		d = min(d, memoryInterval)
	}
	if c != nil && c.until > 0 && !c.stopping { // the timeout does not count the time of a suspended machine: it is d at most
		d = min(d, time.Duration(c.until-min(c.until, bootTime()))*time.Millisecond) //nolint:gosec // far below
	}
	return int(d.Milliseconds())
}

// receive reads from the socket and handles the complete requests. It is false at the end of the stream.
func (s *server) receive() bool {
	const piece = 64 << 10
	if cap(s.in)-len(s.in) < piece {
		s.in = append(make([]byte, 0, 2*len(s.in)+2*piece), s.in...)
	}
	oob := make([]byte, unix.CmsgSpace((1+int(streams))*4))
	n, oobn, _, _, err := unix.Recvmsg(s.socket, s.in[len(s.in):cap(s.in)], oob, unix.MSG_CMSG_CLOEXEC)
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || n == 0 {
		return false
	}
	s.in = s.in[:len(s.in)+n]
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			return false
		}
		if s.files, err = unix.ParseUnixRights(&messages[0]); err != nil {
			return false
		}
	}
	at := 0
	for len(s.in)-at >= 4 {
		size := int(binary.LittleEndian.Uint32(s.in[at:]))
		if size < 1 || size > frameMax {
			return false
		}
		if len(s.in)-at-4 < size {
			break
		}
		if !s.handle(s.in[at+4], &decoder{buf: s.in[at+5 : at+4+size]}) {
			return false
		}
		at += 4 + size
	}
	s.in = append(s.in[:0], s.in[at:]...)
	return true
}

func (s *server) handle(kind byte, d *decoder) bool {
	switch kind {
	case kindConfine:
		c := Confinement{NoNewPrivileges: d.number() != 0, Sandbox: d.number() != 0, NoNetwork: d.number() != 0}
		part, err := s.confine(c, d.text())
		s.answer(&answer{Errno: errnoOf(err), Status: part})
	case kindJob:
		s.dir = d.text()
		s.env = d.texts(nil)
		s.envJob = len(s.env)
		s.user = nil
		users := make([]uint32, 0, 2)
		for n := d.number(); n > 0 && !d.bad; n-- {
			users = append(users, uint32(d.number()))
		}
		if len(users) > 1 {
			s.user = &syscall.Credential{Uid: users[0], Gid: users[1], Groups: users[2:]}
		}
		s.giveTemp()
	case kindStart:
		r := &start{id: uint32(d.number()), memory: d.number(), files: s.files}
		lost := d.number() != uint64(len(r.files)) // too many files are open
		r.until, r.grace = d.number(), time.Duration(d.number())*time.Millisecond
		r.path = d.text()
		s.argv = d.texts(s.argv[:0])
		s.env = d.texts(s.env[:s.envJob])
		s.files = nil
		if d.bad || s.command != nil || s.waiting != nil {
			return false
		}
		switch {
		case lost:
			r.close()
			s.answer(&answer{ID: r.id, Errno: uint32(unix.EMFILE)})
		case s.stuck:
			s.waiting = r
		default:
			s.start(r)
		}
	case kindStop:
		s.stop(uint32(d.number()), time.Duration(d.number())*time.Millisecond)
	case kindExtend:
		id, until := uint32(d.number()), d.number()
		for _, r := range []*start{s.waiting, s.running()} {
			if r != nil && r.id == id {
				r.until = until
			}
		}
	case kindPause:
		// A process may fork until it is stopped.
		for range 5 {
			s.signal(unix.SIGSTOP)
		}
	case kindContinue:
		s.signal(unix.SIGCONT)
	}
	return !d.bad
}

// start starts a command. A script without an interpreter line is run by the shell, as shells and xargs do.
func (s *server) start(r *start) {
	c := &running{start: *r, handle: -1, outputs: [streams]pipe{{-1, -1}, {-1, -1}}}
	if r.memory > 0 && s.group.limit(r.memory) {
		c.grouped, c.kills = true, s.group.kills()
	}
	pid, err := s.fork(c)
	if err != nil {
		for i := range c.outputs {
			c.outputs[i].close()
		}
		errno, _ := err.(syscall.Errno) //nolint:errorlint // ForkExec returns it unwrapped
		s.answer(&answer{ID: r.id, Errno: uint32(max(errno, 1))})
		return
	}
	c.pid, c.answer.ID = pid, r.id
	s.command = c
	if r.memory > 0 {
		s.intoGroup(c)
	}
}

// fork starts the process of a command, with pipes for its outputs.
func (s *server) fork(c *running) (pid int, err error) {
	var files [1 + streams]uintptr // 0 is /dev/null
	for i, fd := range c.files {
		files[i] = uintptr(fd)
	}
	defer c.close()
	for i := range c.outputs {
		if files[1+i] != 0 {
			continue
		}
		var ends [2]int
		if err := syscall.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			return 0, err
		}
		c.outputs[i], files[1+i] = pipe{ends[0], ends[1]}, uintptr(ends[1])
	}
	attr := syscall.ProcAttr{
		Dir: s.dir, Env: s.env, Files: files[:], Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, PidFD: &c.handle, Credential: s.user},
	}
	pid, err = syscall.ForkExec(c.path, s.argv, &attr)
	if errors.Is(err, syscall.ENOEXEC) {
		pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", c.path}, s.argv[1:]...), &attr)
	}
	return pid, err
}

// intoGroup moves a command that has just started into the group, with what it may have started meanwhile.
func (s *server) intoGroup(c *running) {
	c.grouped = c.grouped && s.group.add([]proc{{pid: c.pid}})
	for known := 0; c.grouped; {
		list := s.descendants()
		if len(list) <= known {
			return
		}
		known, c.grouped = len(list), s.group.add(list)
	}
}

func (s *server) answer(a *answer) {
	s.reply = a.append(s.reply[:0])
	_ = unix.Sendto(s.socket, s.reply, unix.MSG_NOSIGNAL, nil) // if the other end is closed, the next poll says so
}

// running is the start of the command that runs; nil: none does.
func (s *server) running() *start {
	if s.command == nil {
		return nil
	}
	return &s.command.start
}

// stopOverdue stops the command if its time is over.
func (s *server) stopOverdue() {
	if c := s.command; c != nil && c.until > 0 && !c.stopping && bootTime() >= c.until {
		c.answer.Overdue = true
		s.stop(c.id, c.grace)
	}
}

// stop asks all processes of a command to end.
func (s *server) stop(id uint32, grace time.Duration) {
	if r := s.waiting; r != nil && r.id == id {
		r.close()
		s.waiting = nil
		s.answer(&answer{ID: id, Status: uint32(syscall.SIGTERM)})
	}
	c := s.command
	if c == nil || c.id != id || c.stopping && !time.Now().Add(grace).Before(c.deadline) {
		return
	}
	c.stopping, c.deadline = true, time.Now().Add(grace)
	if grace > 0 {
		s.signal(unix.SIGTERM)
		s.signal(unix.SIGCONT) // a stopped process does not handle SIGTERM
	}
}

// watch looks at the command after a wake-up.
func (s *server) watch() {
	c := s.command
	none := s.reap(c)
	now := time.Now()
	if c.memory > 0 && (c.ended || !now.Before(c.sample)) {
		c.sample = now.Add(memoryInterval)
		if c.answer.OverMemory = max(c.answer.OverMemory, s.overMemory(c)); c.answer.OverMemory > 0 {
			c.stopping, c.deadline = true, now // after SIGTERM it could grow further
		}
	}
	overdue := c.stopping && !now.Before(c.deadline)
	if !none && !overdue && (c.stopping || !c.ended) {
		return
	}
	if c.handle >= 0 {
		_ = unix.Close(c.handle)
	}
	if !none {
		ended := c.ended
		s.killer = killer{}
		deadline := now.Add(clearTimeout)
		for !s.clear(&s.killer) && !s.stuck {
			s.stuck = s.killer.passes >= passesStuck && !time.Now().Before(deadline)
		}
		c.answer.Left = uint32(len(s.killer.killed))
		if !ended && s.killer.killed[c.pid] {
			c.answer.Left--
		}
	}
	s.passLast(c)
	s.command = nil
	s.clearTemp()
	if s.stuck {
		left := s.descendants()
		c.answer.Stuck = uint32(max(1, len(left)))
		if len(left) > 0 {
			c.answer.StuckPID = uint32(left[0].pid)
		}
	}
	s.answer(&c.answer)
}

// overMemory returns the memory in use if it exceeds the limit of the command, or has.
func (s *server) overMemory(c *running) uint64 {
	if c.grouped {
		if s.group.kills() > c.kills {
			return c.memory
		}
		return 0
	}
	var used uint64
	for _, p := range s.descendants() {
		used += p.rss
	}
	if used <= c.memory {
		return 0
	}
	return used
}

// reap waits for the children that have ended. none is true if there are no others.
func (s *server) reap(c *running) (none bool) {
	for {
		var status unix.WaitStatus
		var usage unix.Rusage
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, &usage)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return true // ECHILD
		case pid == 0:
			return false
		}
		if c == nil {
			continue
		}
		c.answer.CPU += uint64(usage.Utime.Nano() + usage.Stime.Nano())
		var own unix.Rusage // a new process has the keeper's resident set until it executes its program, and that counts as its own
		if unix.Getrusage(unix.RUSAGE_SELF, &own) == nil && usage.Maxrss > own.Maxrss {
			c.answer.Peak = max(c.answer.Peak, uint64(usage.Maxrss)<<10)
		}
		if pid == c.pid {
			c.ended, c.answer.Status = true, uint32(status)
		}
	}
}

// clear kills what is left, waits a moment, and reports whether nothing is.
func (s *server) clear(k *killer) bool {
	if s.reap(s.command) {
		return true
	}
	left := s.descendants()
	if len(left) == 0 && s.command != nil { // no /proc
		_ = unix.Kill(-s.command.pid, unix.SIGKILL)
	}
	k.pass(left)
	if k.passes > passesKill {
		for range childrenPasses {
			k.killChildren()
			if s.reap(s.command) {
				return true
			}
		}
	}
	wait := unix.NsecToTimespec(min(int64(k.passes)*int64(200*time.Microsecond), int64(10*time.Millisecond)))
	_ = unix.Nanosleep(&wait, nil) // an interruption only shortens it
	return s.reap(s.command)
}

func (s *server) retryClear() {
	if !s.clear(&s.killer) {
		return
	}
	s.stuck = false
	s.clearTemp()
	if r := s.waiting; r != nil {
		s.waiting = nil
		s.start(r)
	}
}

func (s *server) descendants() []proc {
	own := os.Getpid()
	return below(processes(), func(p *proc) bool { return p.parent == own })
}

func (s *server) signal(sig unix.Signal) {
	for _, p := range s.descendants() {
		p.signal(sig)
	}
}
