// Package runner runs one attempt of a task: a built-in job in the worker's own process, or a command.
//
// A [Slot] runs one attempt at a time and keeps what the next one can use again: buffers, decoders, and for commands two
// open files, one that takes standard output and one that takes standard error, once no process of an earlier attempt can
// have them open any more. A task that writes nothing therefore
// costs a command no file at all, and a built-in job no system call.
//
// An attempt writes to the attempt-private folder OUTPUT/_temporary/UID, which is made when it is first needed, and to one
// file there, named by package layout. Nothing here makes it durable or visible: the worker syncs, the leader's log decides,
// the commit task renames.
//
// # Commands
//
// A command runs in a process group of its own, in the job's working directory. It reads its split, decompressed, from
// standard input; where an argument holds {} it gets the input's path or the item there and no standard input, and an
// item that no argument asks for becomes the last argument. When the command has ended, what is left of its group is
// killed. A process that has left the group (setsid, timeout) goes on; if it still has the output open, the attempt fails,
// because what it may write would change a part that is already counted.
//
// To the worker's own environment are added
//
//	B4_JOB B4_TASK B4_ATTEMPT  numbers of the job, the task in its stage (from 0) and the attempt (from 1)
//	B4_STAGE                   name of the stage: map
//	B4_INPUT                   path of the input, or the item
//	B4_OFFSET B4_LENGTH        the split in the input, in bytes; empty for a whole file and for items
//	B4_OUTPUT                  the job's output folder; empty for a job without --output
//	B4_WORKER                  number of the worker
//	B4_SET_KEY                 the setting key, in upper case, with _ for what is neither letter nor digit
package runner
