package layout

import (
	"fmt"
	"strconv"
	"strings"
)

// Names in an output folder, but for Mark and Names.
const (
	Success   = "_SUCCESS"   // the manifest of a complete output
	Partial   = "_PARTIAL"   // the manifest of what a failed job leaves, if asked to
	Result    = "_RESULT"    // the collected result
	Temporary = "_temporary" // holds the private folders of the jobs that are writing
	Mark      = "_OURS"      // in the private folder: the parts in the output folder belong to this job
	Names     = "_NAMES"     // in the private folder: the names of parts in the output folder that are not part-NNNNN
)

// Private is the folder that the attempts of a job write to. It depends on the job's uid because job numbers repeat from
// cluster to cluster.
func Private(uid string) string { return Temporary + "/" + uid }

// Attempt is the name of an attempt's file in the private folder. Leases are unique, so that no two attempts share a file.
func Attempt(stage string, index, lease uint64) string {
	name := make([]byte, 0, len(stage)+42)
	name = append(append(name, stage...), '-')
	name = append(strconv.AppendUint(name, index, 10), '-')
	return string(strconv.AppendUint(name, lease, 10))
}

// Lease is the lease in a name that Attempt gave.
func Lease(name string) (lease uint64, ok bool) {
	lease, err := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	return lease, err == nil
}

const partDigitsMin = 5

// Part is the name of a task's part. All parts of a job have names of equal length, so that `cat part-*` is in task order.
func Part(index, tasks uint64) string {
	digits := partDigitsMin
	for n := uint64(100_000); n < tasks; n *= 10 {
		digits++
		if digits == 20 { // of the largest uint64
			break
		}
	}
	return fmt.Sprintf("part-%0*d", digits, index)
}

// IsPart reports whether Part gives such names.
func IsPart(name string) bool {
	digits, ok := strings.CutPrefix(name, "part-")
	return ok && len(digits) >= partDigitsMin && strings.Trim(digits, "0123456789") == ""
}

// IsManifest reports whether name is that of a manifest.
func IsManifest(name string) bool { return name == Success || name == Partial }

// IsPublished reports whether name is one that a commit gives, and that an overwrite may remove.
func IsPublished(name string) bool { return IsPart(name) || IsManifest(name) || name == Result }
