// Package plan turns what a user asks for into what the log keeps: it checks a job request, says all that is wrong with it at
// once, and lists its input. It looks at files and changes none.
//
// What an input names: a file; a folder, which stands for its files at any depth; or a pattern of path.Match's, in which **
// also stands for any number of folders. Folders and patterns leave out names that begin with "." (hidden) or "_" (another job's
// _SUCCESS and _temporary: its output may be an input), unless the pattern writes that first character. Files are taken in byte
// order of their names within each input, inputs in the order they are given, and each file once.
//
// A file that cannot be looked at any more, because somebody has just removed it, or that cannot be read, does not hinder the
// job: its task dies of it, and the others go on.
package plan
