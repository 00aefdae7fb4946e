package wire

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

func TestFailureMessage(t *testing.T) {
	full := strings.Repeat("x", FailureMessageMax)
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"exit status 1", "exit status 1"},
		{"a\xff\xfeb", "a\uFFFDb"},
		{full, full},
		{full + "x", full[:FailureMessageMax-3] + "…"},
		{full[:FailureMessageMax-4] + "éxxx", full[:FailureMessageMax-4] + "…"}, // the cut would fall into é
		{strings.Repeat("\xff", FailureMessageMax+1), "\uFFFD"},
	} {
		got := FailureMessage(c.in)
		if got != c.want {
			t.Errorf("FailureMessage(%.20q) ends in %q, want %q", c.in, tail(got), tail(c.want))
		}
		if _, err := proto.Marshal(&Failure{Message: got}); err != nil {
			t.Errorf("FailureMessage(%.20q) cannot be sent: %v", c.in, err)
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-20):] }
