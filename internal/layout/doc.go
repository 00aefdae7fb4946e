// Package layout names the files of an output folder:
//
//	OUTPUT/part-00007               a task's part, unless the job gives the parts names of their own
//	OUTPUT/_RESULT                  the collected result
//	OUTPUT/_SUCCESS, _PARTIAL       the manifest, written last
//	OUTPUT/_temporary/UID/          private to the attempts of the job UID
//	OUTPUT/_temporary/UID/map-7-42  what the attempt with lease 42 of task map/7 wrote
//
// All names are relative, with "/" as separator, and valid in every store.
package layout
