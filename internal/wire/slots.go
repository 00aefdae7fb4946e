package wire

// Text is the status in the words of the API.
func (s SlotStatus) Text() string {
	switch s {
	case SlotStatus_SLOT_RUNNING:
		return "running"
	case SlotStatus_SLOT_DONE:
		return "done"
	case SlotStatus_SLOT_FAILED:
		return "failed"
	case SlotStatus_SLOT_UNUSED:
	}
	return "unused"
}
