package blob

// Explain is for the test of what people read.
func Explain(op string, name Location, err error) error { return explain(op, name, err) }
