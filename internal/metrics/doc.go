// Package metrics serves Prometheus metrics of a leader or a worker: one registry a process, histograms that are cheap enough for each task,
// and what libraries measure.
package metrics
