package wire

// Messages about many tasks are columns of equal length. A column is absent when it would be all zero, and when its sender
// is of a version that does not know it.

// Entry returns entry i of a column: zero if the column is absent.
func Entry[T any](column []T, i int) (v T) {
	if i < len(column) {
		v = column[i]
	}
	return v
}

// ColumnFits reports whether a column is absent or has n entries.
func ColumnFits[T any](column []T, n int) bool { return len(column) == 0 || len(column) == n }
