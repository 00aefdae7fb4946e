package leader

import (
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/state"
)

// JobBytesMax bounds the submit command of a job and the job's message to workers. Leaders and workers accept messages of
// 64 MiB: a larger job would be sent, rejected and sent again for ever.
const JobBytesMax = 32 << 20

// workBytesMax bounds a Work message, except for a single larger job.
const workBytesMax = 16 << 20

// leaseBytes bounds the size of a lease in a message without its path or line.
const leaseBytes = 96

// JobBytes is the size of a job's submit command or of its message, whichever is larger.
func JobBytes(key, uid string, spec *state.Spec) int {
	entry := state.NewEntry(0, state.FeatureLevel)
	entry.Submit(key, uid, "", spec)
	return max(entry.Size(), proto.Size(wireJob(&state.Job{UID: uid, Spec: spec})))
}
