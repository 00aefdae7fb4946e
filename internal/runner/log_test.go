package runner

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestLogKeepsBothHalves writes logs in pieces of random size.
func TestLogKeepsBothHalves(t *testing.T) {
	var l attemptLog
	l.sizeMax = 200
	rapid.Check(t, func(t *rapid.T) {
		var sink logged
		l.begin(&sink)
		var all strings.Builder
		for i := range rapid.IntRange(0, 200).Draw(t, "writes") {
			text := fmt.Sprintf("line %d%s", i, rapid.SampledFrom([]string{"\n", "", "\n\n", strings.Repeat("x", 150) + "\n"}).Draw(t, "end"))
			all.WriteString(text)
			if n, err := l.Write([]byte(text)); err != nil || n != len(text) {
				t.Fatalf("Write() = %d, %v", n, err)
			}
		}
		l.finish()
		checkCut(t.Fatalf, sink.String(), all.String(), int(l.sizeMax))
	})
}

// checkCut checks that got is the whole log, or its first and last half with a mark that counts the cut bytes.
func checkCut(fatalf func(string, ...any), got, all string, sizeMax int) {
	if len(all) <= sizeMax {
		if got != all {
			fatalf("log = %.300q, want all of %.300q", got, all)
		}
		return
	}
	head, rest, found := strings.Cut(got, "… ")
	var cut int
	if _, err := fmt.Sscanf(rest, "%d bytes cut …\n", &cut); !found || err != nil {
		fatalf("log = %.300q has no mark: %v", got, err)
		return
	}
	_, tail, _ := strings.Cut(rest, "\n")
	if len(head) > sizeMax/2 {
		head = strings.TrimSuffix(head, "\n") // the mark begins a line
	}
	if !strings.HasPrefix(all, head) || !strings.HasSuffix(all, tail) || len(head)+cut+len(tail) != len(all) {
		fatalf("log = %.300q, want both ends of %.300q with %d bytes missing", got, all, len(all)-len(head)-len(tail))
	}
	if len(head) != sizeMax/2 || len(tail) > sizeMax-sizeMax/2 {
		fatalf("log has halves of %d and %d bytes, want %d in all", len(head), len(tail), sizeMax)
	}
}

func TestLogPassesWholeLines(t *testing.T) {
	var l attemptLog
	var sink logged
	l.sizeMax = 1 << 20
	l.begin(&sink)
	for _, step := range []struct{ write, want string }{
		{"beg", ""},
		{"un\nmore", "begun\n"},
		{" and more\n", "begun\nmore and more\n"},
	} {
		if _, err := l.Write([]byte(step.write)); err != nil || sink.String() != step.want {
			t.Errorf("after %q the sink has %q, want %q", step.write, sink.String(), step.want)
		}
	}
	long := strings.Repeat("l", logLineMax)
	if _, err := l.Write([]byte(long)); err != nil || !strings.HasSuffix(sink.String(), long) {
		t.Errorf("a line of %d bytes waits for its end", len(long))
	}
	if _, err := l.Write([]byte("no end")); err != nil {
		t.Fatal(err)
	}
	l.finish()
	if !strings.HasSuffix(sink.String(), "no end") {
		t.Error("the last line is missing")
	}
	size := len(sink.String())
	if _, err := l.Write([]byte("late\n")); err != nil || len(sink.String()) != size {
		t.Error("what is logged after the end reaches the sink")
	}
}
