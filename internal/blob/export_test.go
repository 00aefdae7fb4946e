package blob

// Explain is for the test of what people read.
func Explain(op, name string, err error) error { return explain(op, name, err) }
