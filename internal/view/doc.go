// Package view is the read side of a node. [Views] are copies of the state that the [Publisher] makes and nobody changes: a read
// of them neither waits for the goroutine that owns the state nor slows it. The [Reader] serves all reads: from the views, and,
// for what is too much to copy (tasks, explanations, parts, events), by short and bounded visits to that goroutine.
package view
