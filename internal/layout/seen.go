package layout

// Maker is the machine that made an output. The numbers are those of the wire.
type Maker uint8

// The makers, as seen from a worker.
const (
	MakerUnknown Maker = iota
	MadeHere
	MadeElsewhere
	MakerLeft // the cluster
)

// Seen is what a worker sees of the outputs of a job's tasks. It tells outputs that are lost from those in a folder that this worker does not share with
// the workers that made them: on such a worker every output of the others is missing, however often it is made.
type Seen struct{ here, elsewhere, lost bool }

// Add adds an output that is there, or missing. It reports whether Lost is true whatever else is added.
func (s *Seen) Add(maker Maker, there bool) (lost bool) {
	switch {
	case there && maker == MadeHere:
		s.here = true
	case there && maker != MakerLeft: // that may have been here
		s.elsewhere = true
	case !there && (maker == MadeHere || maker == MakerLeft): // no other worker can be asked
		s.lost = true
	}
	return s.lost || s.elsewhere
}

// Lost reports whether the outputs that are missing are lost. Folder reports whether the output folder exists; it decides if nothing was made here, and none
// of the outputs is there.
func (s *Seen) Lost(folder func() bool) bool {
	switch {
	case s.lost, s.elsewhere:
		return true
	case s.here:
		return false
	}
	return folder()
}
