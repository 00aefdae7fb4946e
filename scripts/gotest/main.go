// Command gotest runs go test with its arguments and prints what go test prints, and the tests that were skipped. An unexpected skip
// is a failure: otherwise a test that never runs on the build machine goes unnoticed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

func main() {
	args := append([]string{"test", "-json"}, os.Args[1:]...)
	cmd := exec.CommandContext(context.Background(), "go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run go test:", err)
		os.Exit(1)
	}
	r := report{out: os.Stdout, output: map[string]*strings.Builder{}}
	readErr := r.read(out)
	err = cmd.Wait()
	r.failed = r.failed || readErr != nil || err != nil
	if _, exited := errors.AsType[*exec.ExitError](err); readErr != nil || (err != nil && !exited) { // go test reports a failure itself
		fmt.Fprintln(os.Stderr, "go test:", errors.Join(readErr, err))
	}
	if !r.finish(allowances()) {
		os.Exit(1)
	}
}

// event is a line of go test -json; see go doc test2json.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// report collects the output of tests and packages until it is known whether it is to be printed.
type report struct {
	out    io.Writer
	output map[string]*strings.Builder // by test, or package, that has not ended
	skips  []skip
	failed bool
}

type skip struct {
	name   string // package and test
	reason string
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if len(line) > 0 && json.Unmarshal(line, &e) == nil {
			r.handle(e)
		} else {
			r.print(string(line))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the output of go test: %w", err)
		}
	}
}

// print prints text. There is no other place to report an error of standard output to.
func (r *report) print(text string) { _, _ = io.WriteString(r.out, text) }

func (r *report) handle(e event) {
	name := e.Package
	if e.Test != "" {
		name += "." + e.Test
	}
	switch e.Action {
	case "build-output":
		r.print(e.Output)
	case "output":
		if strings.HasPrefix(e.Output, "=== ") {
			return
		}
		if r.output[name] == nil {
			r.output[name] = &strings.Builder{}
		}
		r.output[name].WriteString(e.Output)
	case "pass":
		text := r.end(name)
		if e.Test == "" { // the line "ok", as go test prints it without -v
			r.print(lastLine(text) + "\n")
		}
	case "skip":
		text := r.end(name)
		if e.Test == "" { // the line "no test files"
			r.print(text)
		} else {
			r.skips = append(r.skips, skip{name: name, reason: reasonOf(text)})
		}
	case "fail":
		r.failed = true
		if e.Test == "" {
			r.printRunning(e.Package)
		}
		r.printFailed(r.end(name))
	}
}

// printFailed prints the output of a test or package that failed. The reason stands last, above the line --- FAIL: the logs of processes,
// which tests print in their cleanup, are long, and build servers show the last lines only.
func (r *report) printFailed(text string) {
	log, end := text, ""
	if i := strings.LastIndex(text, "--- FAIL: "); i >= 0 {
		i = strings.LastIndexByte(text[:i], '\n') + 1
		log, end = text[:i], text[i:]
	}
	r.print(log)
	if strings.Count(log, "\n") > headsMax {
		r.print(strings.Join(headsOf(log), ""))
	}
	r.print(end)
}

// end returns and drops the output of a test or a package.
func (r *report) end(name string) string {
	text := ""
	if b := r.output[name]; b != nil {
		text = b.String()
	}
	delete(r.output, name)
	return text
}

// printRunning prints the output of the tests of a package that have not ended: of a panic or a timeout.
func (r *report) printRunning(pkg string) {
	for name := range r.output {
		if strings.HasPrefix(name, pkg+".") {
			r.print(r.end(name))
		}
	}
}

// finish prints the skips and, after a failure, FAIL. It reports whether all is well.
func (r *report) finish(allowed []allowance) bool {
	for _, s := range r.skips {
		why, ok := allowanceFor(s, allowed)
		if !ok {
			r.failed = true
			why = "unexpected: fix the cause, or add it with a reason to scripts/gotest/allowed.go"
		}
		r.print(fmt.Sprintf("skipped: %s: %s (%s)\n", s.name, s.reason, why))
	}
	if r.failed {
		r.print("FAIL\n")
	}
	return !r.failed
}

// message matches the first line of what a test logs or reports, and the line with which testscript ends.
var message = regexp.MustCompile(`^\s+\w+\.go:\d+: |^\s*FAIL: |^panic: |^\s*WARNING: DATA RACE`)

const headsMax = 15

// headsOf returns the first lines of the last messages in the output of a test.
func headsOf(text string) (heads []string) {
	const widthMax = 500
	for line := range strings.Lines(text) {
		if message.MatchString(line) {
			heads = append(heads, strings.TrimSuffix(line[:min(len(line), widthMax)], "\n")+"\n")
		}
	}
	return heads[max(0, len(heads)-headsMax):]
}

func lastLine(text string) string {
	text = strings.TrimRight(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// reasonOf is the message in the output of a skipped test, which stands before or after the line --- SKIP.
func reasonOf(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "--- ") {
			continue
		}
		if _, message, ok := strings.Cut(line, ".go:"); ok { // file.go:LINE: message
			_, line, _ = strings.Cut(message, ": ")
		}
		return line
	}
	return "no reason given"
}
