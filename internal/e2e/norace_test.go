//go:build !race

package e2e

// raceDetector says whether these tests were built with the race detector; the binary then is as well.
const raceDetector = false
