// Package runner runs one attempt of a task: it gives the job's program its input, and makes what the program writes the
// attempt's output.
//
// A [Slot] runs one attempt at a time and keeps what the next one can use: buffers, decoders, and for commands two open
// files, for standard output and standard error, as long as no process of an earlier attempt can have them open. A task
// that writes nothing therefore costs a command no new file, and a built-in job no system call.
//
// An attempt writes to the job's private folder, which is created when it is first needed, and to one file there, see
// package layout. The runner makes nothing durable or visible: the worker syncs, the leader's log decides, the commit task
// publishes.
//
// A process that outlives its command and still has the output open makes the attempt fail, because what it may write
// would change a part that is already counted.
package runner
