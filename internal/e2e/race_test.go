//go:build race

package e2e

// raceDetector reports whether the tests and the binary are built with the race detector.
const raceDetector = true
