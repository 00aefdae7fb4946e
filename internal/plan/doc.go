// Package plan validates a job request, reports all its errors at once, and lists its input. It changes no files.
//
// An input is a file; a folder, which means its files at any depth; or a pattern with *, ?, [a-z] and {a,b}, in which ** also matches any number
// of folders. Folders and patterns skip names that begin with "." (hidden) or "_" (such as _SUCCESS and _temporary of another job,
// whose output may be an input), unless the pattern contains that first character. Files are in byte order of their names within
// each input, inputs in the given order, and each file occurs once.
//
// Each file is planned with its version, so that a reader notices a change. Lines and numbers are in the log themselves. At a
// retry, [Again] compares the files with their versions.
//
// A file that is larger than a split is cut between records (package record) if it is text, which its first bytes tell (package format). Other
// files are not opened. All are listed before the first is cut: the size of splits, and which small files share a task, may follow from the size of the input
// and the slots (divide.go).
//
// A file that was just removed, or that cannot be read, does not fail the job: its task fails, and the others continue.
package plan
