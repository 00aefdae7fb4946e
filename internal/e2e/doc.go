// Package e2e holds the tests that need the real thing: the real binary in real processes, which are killed, stopped, cut off and
// starved while they work, over real files whose results coreutils know.
//
// The tests look from outside. What ran they see in a ledger, a file to which each attempt of a task appends a line; that
// nothing is lost or doubled they see in the parts, which must be equal, byte for byte, to what another program makes of the same
// input; that nothing is left behind they see in the output folder. They wait by asking again and again until a deadline that
// only a broken program reaches, and hold up tasks with gates: files for which a task waits.
//
// A process gets a folder of the test's own, port 0, and its output is shown if the test fails. Where the tests are built with
// the race detector so is the binary, and a race it reports fails the test.
//
// A group is a cluster of several leaders. Each has a loopback address of its own, so that it can end and begin again where it was. It
// is cut off in two ways: by a network of the test's own, in the process of the test, through which all that is sent to it goes
// and which knows who sent it, so that it can cut any direction between any two; and, as root, in a network namespace whose plug is
// pulled. A disk is slow in that it is frozen, and loses what was not fsynced in that a copy of it is mounted.
//
// # Wrong builds
//
// A test that cannot fail proves nothing. These builds were made wrong on purpose, tested with -binary, and failed at the first try:
//
//	strong reads are served at once, without ReadIndex     TestLinearizable, TestLeaderLost/cut_off
//	an entry is committed when the leading one has it      TestLinearizable
//	the log is written, and not fsynced                    TestPowerLossUnsynced
//	the files of attempts are written, and not fsynced     TestPowerLossUnsynced
package e2e
