// Package keeper runs commands so that nothing which they start outlives them.
//
// A [Keeper] is a child process: this binary again, which [init] recognizes by its arguments. It is the subreaper of all that its
// commands start, so processes that leave their group or session (timeout, setsid, daemons) remain its descendants. When a command
// ends, the keeper kills what is left of it, waits until it is gone, and only then answers. When the process that started it ends in any
// way, the socket between them is closed: the keeper kills everything, and exits.
//
// A command gets the given standard input, two pipes for its output and no other descriptors, its own process group, no controlling
// terminal, and default signal dispositions. If it kills its keeper, the kernel kills the command, and the process that started the
// keeper, also a subreaper, kills the rest.
//
// Linux only. On other systems a command is a process group: what leaves the group is not killed.
package keeper
