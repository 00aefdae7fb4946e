package suggest

import (
	"strings"
	"testing"
)

func TestClosest(t *testing.T) {
	names := []string{"wordcount", "grep", "--input", "--range", "jobs", strings.Repeat("x", lengthMax+1)}
	for given, want := range map[string]string{
		"wordcuont":                      "wordcount", // swapped
		"WordCont":                       "wordcount", // left out, and another case
		"gerp":                           "grep",
		"--inptu":                        "--input",
		"--rnage":                        "--range",
		"jbos":                           "jobs",
		"completely-different":           "",
		"":                               "",
		"-":                              "",
		strings.Repeat("x", lengthMax+1): "", // not compared
	} {
		if got := Closest(given, names); got != want {
			t.Errorf("Closest(%q) = %q, want %q", given, got, want)
		}
	}
}
