// Package shuffle moves records from the tasks of one stage to those of the next, by key.
//
// A task of the first stage writes one segment: its records by partition, and in each partition sorted by key. A task of the next stage reads
// its partition of every segment and merges them. Records with equal keys stay in the order in which they were added, and those of different
// segments in the order of the segments, so a task that runs again has the same input.
//
// A segment is
//
//	block…   the partitions one after another; no block has records of two
//	index    for each partition four uvarints: bytes of its blocks, bytes of its records, number of its records, bytes of the longest if it is longer than a block; in a sorted segment, its marks
//	footer   32 bits: length of the index; 32 bits: number of partitions; 64 bits: xxh64 of the index and the numbers before; "b4s1", sorted "b4r1"
//
// and a block is
//
//	32 bits: bytes of the records; 32 bits: bytes that follow the header; 64 bits: xxh64 of those
//	records: uvarint length of the key, key, uvarint length of the value, value; compressed (S2) if that makes them shorter
//
// A hash of the key divides the records among the partitions. If these are ranges of keys instead, a segment is sorted as a whole, with keys of it and where they are as
// marks: a task of the next stage reads the marks of all segments and cuts ranges with about as many bytes each.
//
// All numbers of fixed size are little endian. Segments are not synced: one that is missing or damaged is noticed, and its task runs again.
package shuffle
