package wire

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Limits of messages, which their receivers check. Those of a worker's Hello are the leader's, which refuses the worker by name.
const (
	// SlotsMax bounds the slots of a worker.
	SlotsMax = 4096
	// TextBytesMax bounds names, ids and versions.
	TextBytesMax = 256
	// leasesPerSlot is what a leader grants ahead for a slot at most.
	leasesPerSlot = 4096
	// unacked is more than the results that a worker keeps for the next leader.
	unacked = 1 << 20

	reportItemsMax = 64 << 10 // a worker's have 4,096
	sizeMax        = 1 << 48  // bytes or records of an attempt
	timeMax        = 1 << 48  // of an attempt, in µs, and of a report, in ms
	termMax        = 1<<24 - 1
	stagesMax      = 64
	resourcesMax   = 32
	logTextMax     = 256 << 10 // of a record
	logRecordsMax  = 8 << 10   // of a message
)

// HeldMax is how many leases a worker may hold.
func HeldMax(slots uint32) int { return 2*leasesPerSlot*int(slots) + unacked }

// Limit returns an error that names a field above its limit.
func Limit(field string, value, limit uint64) error {
	if value > limit {
		return fmt.Errorf("%s is %d: want at most %d", field, value, limit)
	}
	return nil
}

// Text returns why a text cannot be shown to users: it is too long, or has control characters. Protocol Buffers check UTF-8.
func Text(field, text string) error {
	if len(text) > TextBytesMax {
		return fmt.Errorf("%s has %d bytes: want at most %d", field, len(text), TextBytesMax)
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("%s has control characters", field)
	}
	return nil
}

// name returns why a text cannot be a part of a file's name.
func name(field, text string) error {
	if text == "" || strings.Trim(text, ".") == "" || strings.ContainsAny(text, `/\`) {
		return fmt.Errorf("invalid %s %.*q: want the name of a file", field, TextBytesMax, text)
	}
	return Text(field, text)
}

// column returns why an optional column of n entries is invalid, or one of its values is above the limit.
func column(field string, col []uint64, n int, limit uint64) error {
	if !ColumnFits(col, n) {
		return fmt.Errorf("%s has %d entries: want %d or none", field, len(col), n)
	}
	for _, v := range col {
		if v > limit {
			return Limit(field, v, limit)
		}
	}
	return nil
}

// Check returns which field of a report is out of its limits.
func (r *Report) Check() error {
	items := len(r.GetFailed()) + len(r.GetReturned()) + len(r.GetLost()) + len(r.GetFinished())
	for _, f := range r.GetFinished() {
		n := len(f.GetIndex())
		items += n
		if len(f.GetLease()) != n {
			return fmt.Errorf("finished.lease has %d entries: want %d", len(f.GetLease()), n)
		}
		if err := cmp.Or(
			column("finished.size", f.GetSize(), n, sizeMax), column("finished.records", f.GetRecords(), n, sizeMax),
			column("finished.input_bytes", f.GetInputBytes(), n, sizeMax), column("finished.micros", f.GetMicros(), n, timeMax),
			column("finished.age_ms", f.GetAgeMs(), n, timeMax), column("finished.checksum", f.GetChecksum(), n, ^uint64(0)),
			column("finished.peak_kib", f.GetPeakKib(), n, sizeMax),
			Limit("the number of finished.warnings", uint64(len(f.GetWarnings())), uint64(n)),
		); err != nil {
			return err
		}
	}
	for _, f := range r.GetFailed() {
		if err := Limit("failed.micros", f.GetMicros(), timeMax); err != nil {
			return err
		}
	}
	return cmp.Or(
		Limit("the number of results", uint64(items), reportItemsMax), Limit("the number of running", uint64(len(r.GetRunning())), SlotsMax),
		Limit("the number of slots", uint64(len(r.GetSlots())), SlotsMax),
	)
}

// Check returns which field of a message of log records is out of its limits.
func (l *LogRecords) Check() error {
	for _, r := range l.GetRecords() {
		if err := Limit("the length of a log record", uint64(len(r.GetText())), logTextMax); err != nil {
			return err
		}
	}
	return Limit("the number of log records", uint64(len(l.GetRecords())), logRecordsMax)
}

// Check returns which field of a welcome is out of its limits. The addresses of leaders are checked by the search.
func (w *Welcome) Check() error {
	return cmp.Or(Limit("term", w.GetTerm(), termMax), Text("cluster", w.GetCluster()), Text("cluster_id", w.GetClusterId()))
}

// Check returns which field of a job is out of its limits: those that become names of files, or are kept for each lease.
func (j *Job) Check() error {
	if err := cmp.Or(
		name("uid", j.GetUid()), Limit("the number of stages", uint64(max(len(j.GetStages()), len(j.GetPlan()))), stagesMax),
		Limit("timeout_ms", j.GetTimeoutMs(), timeMax), Limit("the number of resources", uint64(len(j.GetResources())), resourcesMax),
	); err != nil {
		return err
	}
	for _, s := range j.GetStages() {
		if err := name("stages", s); err != nil {
			return err
		}
	}
	for _, s := range j.GetPlan() {
		if err := cmp.Or(name("plan.name", s.GetName()), Limit("the number of plan.from", uint64(len(s.GetFrom())), stagesMax)); err != nil {
			return err
		}
	}
	if j.GetOutput() == "" {
		return errors.New("output is empty")
	}
	return nil
}
