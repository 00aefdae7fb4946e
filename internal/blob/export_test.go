package blob

// Explain exports explain for tests.
func Explain(op string, name Location, err error) error { return explain(op, name, err) }
