// Package jobs contains the built-in jobs. They use the public SDK, or, if what they do for a record costs about as much as its
// shuffle, the stages below it.
package jobs

import (
	"strings"

	"github.com/bridgefour/bridgefour"
)

// All returns the built-in jobs, new values at each call.
func All() []bridgefour.Job {
	return []bridgefour.Job{
		WordCount(),
		Grep{},
		DelayedWordCount{},
		Sample{},
		AlwaysOk{},
		Count(), Distinct(), Sort(), Top(), SampleLines(), Pi(), BruteForce(), Join(),
	}
}

// lineKinds are the kinds of records that are lines.
func lineKinds() []string { return []string{"lines", "jsonl"} }

// textKinds are the kinds of records that end with a line, and so not inside of a word.
func textKinds() []string { return append(lineKinds(), "csv", "fasta", "fastq", "start") }

// Find finds a job by its name, or by a class name of the original system: only the part after the last dot counts, without a
// trailing BridgeFourJob or Job, and case is ignored.
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
