// Package e2e has the tests of the real binary in real processes, which are killed, stopped, cut off and run out of disk while they
// work, on real files whose results coreutils compute too.
//
// The tests check results from outside: a ledger, a file to which each attempt of a task appends a line, shows what ran; the parts, which
// must equal the output of another program byte for byte, show that nothing is lost or duplicated; the output folder shows that
// nothing is left behind. They poll until a deadline that only a broken program reaches. Tasks wait at gates, which are files, so that
// a fault finds a job in a known state: see scenario_test.go.
//
// Each test has a folder of its own; processes listen on port 0, and their output is logged if the test fails. If the tests are built
// with the race detector, so is the binary, and a reported race fails the test.
//
// A group is a cluster of several leaders. Each has a loopback address of its own, so that it can restart at the same address. It is cut off
// in two ways: by a proxy in the process of the test, which knows the sender of each connection and can cut any direction between any
// two; and, as root, by a network namespace that is unplugged. A hanging disk is a frozen file system, and a power loss mounts a
// copy of a file system without what was not fsynced.
//
// # Wrong builds
//
// A test that cannot fail proves nothing. These builds with planted bugs were tested with -binary, and failed at the first try:
//
//	strong reads are served at once, without ReadIndex     TestLinearizable, TestLeaderLost/cut_off
//	an entry is committed when the leading one has it      TestLinearizable
//	locks are in the memory of the leader, not in the log  TestLocksAreLinearizable
//	a request that is queued again is no sign of life      TestLocksAreLinearizable
//	the log is written, and not fsynced                    TestPowerLossUnsynced
//	the files of attempts are written, and not fsynced     TestPowerLossUnsynced
package e2e
