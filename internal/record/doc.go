// Package record finds where the records of a file begin, so that a file can be cut between them.
//
// For every kind of records there is a function f: f(x) is the offset of the first record that begins at x or behind it, or the size of
// the file. It depends on the file and x alone. The split [a, b) of a file is read as the bytes [f(a), f(b)), so the splits of a file,
// however it is cut, are its bytes exactly once, and no record is in two splits.
//
// Where f can be computed from the bytes behind x, the reader of a split does that: [Reader]. For fixed records it is arithmetic. In CSV a
// line end may be in a quoted field, which only the number of quotes before it tells: [CSVBoundaries] computes f for all splits in one pass
// over the file, when the job is planned.
package record
