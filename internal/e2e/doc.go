// Package e2e holds the tests that need the real thing: the real binary in real processes, which are killed, stopped and
// starved while they work, over real files whose results coreutils know.
//
// The tests look from outside. What ran they see in a ledger, a file to which each attempt of a task appends a line; that
// nothing is lost or doubled they see in the parts, which must be equal, byte for byte, to what another program makes of the same
// input; that nothing is left behind they see in the output folder. They wait by asking again and again until a deadline that
// only a broken program reaches, and hold up tasks with gates: files for which a task waits.
//
// A process gets a folder of the test's own, port 0, and its output is shown if the test fails. Where the tests are built with
// the race detector so is the binary, and a race it reports fails the test.
package e2e
