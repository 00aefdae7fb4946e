// Package jobs holds the built-in jobs. They are written with the public SDK alone, and are its first users.
package jobs

import (
	"strings"

	"github.com/bridgefour/bridgefour"
)

// All gives the built-in jobs, a new value each at every call.
func All() []bridgefour.Job {
	return []bridgefour.Job{NewWordCount(), Grep{}, DelayedWordCount{}, Sample{}, AlwaysOk{}}
}

// Find looks a job up by the name that users type, or by a class name of the original system: only what follows the last
// dot counts, a trailing BridgeFourJob or Job is ignored, and so is case.
func Find(all []bridgefour.Job, name string) (bridgefour.Job, bool) {
	for _, job := range all {
		if job.Name() == name {
			return job, true
		}
	}
	class := name[strings.LastIndexByte(name, '.')+1:]
	short, found := cutSuffixFold(class, "BridgeFourJob")
	if !found {
		short, _ = cutSuffixFold(class, "Job")
	}
	for _, job := range all {
		if strings.EqualFold(job.Name(), short) {
			return job, true
		}
	}
	return nil, false
}

func cutSuffixFold(s, suffix string) (string, bool) {
	cut := len(s) - len(suffix)
	if cut > 0 && strings.EqualFold(s[cut:], suffix) {
		return s[:cut], true
	}
	return s, false
}
