package wire

import (
	"strings"
	"unicode/utf8"
)

// FailureMessageMax is the longest message of a Failure, in bytes.
const FailureMessageMax = 4 << 10

// FailureMessage converts text for a Failure's message: of bounded length, and valid UTF-8. Otherwise it could not be encoded, and
// its Report, repeated in each session, would end every session.
func FailureMessage(text string) string {
	const mark = "…"
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= FailureMessageMax {
		return text
	}
	cut := FailureMessageMax - len(mark)
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + mark
}
