//go:build race

package sim

// raceDetector reports whether these tests were built with the race detector, which makes them several times slower.
const raceDetector = true
