// Package view is the read side of a node. [Views] are immutable copies of the state that the [Publisher] makes, so reading them does
// not involve the goroutine that owns the state. The [Reader] serves all reads: from the views or, for what is too much to copy
// (tasks, explanations, parts, events), by short visits to that goroutine, which are bounded in length.
package view
