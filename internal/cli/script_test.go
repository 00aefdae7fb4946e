package cli_test

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/cli"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/transport/outsidetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"bridgefour": func() { os.Exit(cli.Main("v0.0.0-test")) },
		"lengths":    func() { os.Exit(cli.MainOfJobs([]bridgefour.Job{lengths{}})) },
		"several":    func() { os.Exit(cli.MainOfJobs([]bridgefour.Job{lengths{}, sorted()})) },
		"worker":     func() { os.Exit(cli.MainOfJobs([]bridgefour.Job{bridgefour.New("worker", sort)})) },
		"broken": func() {
			os.Exit(cli.MainOfJobs([]bridgefour.Job{bridgefour.New("broken", breaks), sorted(), undescribed{}}))
		},
		"nothing": func() { os.Exit(cli.MainOfJobs(nil)) },
	})
}

type sortConfig struct {
	N int `b4:",required"`
}

// sorted is a typed job, beside lengths.
func sorted() bridgefour.Job { return bridgefour.New("sorted", sort) }

func sort(sortConfig) (bridgefour.Output, error) {
	return bridgefour.Map(bridgefour.SortByKey(bridgefour.Map(bridgefour.Lines(), func(_ *bridgefour.Task, line []byte, emit bridgefour.Emit[string, struct{}]) error {
		emit(string(line), struct{}{})
		return nil
	})), func(_ *bridgefour.Task, p bridgefour.KV[string, struct{}], emit bridgefour.Emit[string, struct{}]) error {
		emit(p.Key, p.Value)
		return nil
	}), nil
}

// breaks is a function that builds no job.
func breaks(struct{}) (bridgefour.Output, error) { panic("no building") }

// undescribed is a job whose description panics.
type undescribed struct{ lengths }

func (undescribed) Name() string { return "undescribed" }

func (undescribed) Describe() bridgefour.Description { panic("no description") }

// lengths is the job of a program of its own.
type lengths struct{}

func (lengths) Name() string { return "lengths" }

func (lengths) Describe() bridgefour.Description {
	return bridgefour.Description{Summary: "write the length of each line", Settings: []bridgefour.Setting{{Key: "shortest", Usage: "bytes", Type: "number", Default: "0"}}}
}

func (lengths) Map(_ context.Context, t *bridgefour.Task) error {
	shortest, err := t.Settings().Int("shortest", 0)
	if err != nil {
		return err
	}
	if shortest < 0 {
		return bridgefour.Cancel(errors.New("no line is shorter than that"))
	}
	for records := t.Records(); records.Scan(); {
		if n := len(records.Bytes()); n >= shortest {
			if err := t.Out().EmitInt(records.Bytes(), int64(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestScripts runs the scenarios of testdata/script with the real command line, each in processes of its own.
func TestScripts(t *testing.T) {
	if signal.Ignored(os.Interrupt) { // a shell has started this process with &; then the servers, which scripts end by SIGINT, would ignore it too
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values[outsideKey{}] = sync.OnceValues(outsidetest.New)
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("USER", "kaladin")
			e.Setenv("OWN_HOST", ownHost())
			e.Setenv("GORACE", "atexit_sleep_ms=0") // instead of a second in each process
			e.Setenv("BOOK", filepath.Join(root, "testdata/book/opticks.txt"))
			e.Setenv("README", filepath.Join(root, "README.md"))
			e.Setenv("JOB_FILE", filepath.Join(root, "docs/job-file.md"))
			e.Setenv("SECURITY", filepath.Join(root, "docs/security.md"))
			e.Setenv("OPERATIONS", filepath.Join(root, "docs/operations.md"))
			e.Setenv("LOCKS", filepath.Join(root, "docs/locks.md"))
			e.Setenv("COOKBOOK", filepath.Join(root, "docs/cookbook.md"))
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			case "sandbox":
				return keeper.Check(keeper.Confinement{Sandbox: true, NoNetwork: true}, filepath.Join(t.TempDir(), "b4", "temp")) == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"setfromfile": setFromFile,
			"until":       until,
			"exitcode":    exitCode,
			"lines":       lines,
			"terminate":   terminate,
			"writename":   writeName,
			"certify":     certify,
		},
	})
}

// ownHost returns a loopback address of a script's own. A leader that starts again on its port would find that one in use if another process of
// the machine got it meanwhile. Not every system has more than one such address.
func ownHost() string {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254))
	l, err := net.Listen("tcp", host+":0") //nolint:noctx // opens at once
	if err != nil {
		return "127.0.0.1"
	}
	_ = l.Close()
	return host
}

// patience is how long a script waits for something that must happen.
const patience = 3 * time.Minute

// poll tries until it is true. Scripts can only look from outside at what other processes do.
func poll(ts *testscript.TestScript, what string, try func() bool) {
	deadline := time.Now().Add(patience)
	for !try() {
		if time.Now().After(deadline) {
			ts.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// setFromFile waits for a file and sets a variable to its first line: setfromfile VAR FILE.
func setFromFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setfromfile VAR FILE")
	}
	poll(ts, args[1]+" has a line", func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[1]))
		line, _, found := bytes.Cut(text, []byte("\n"))
		if err == nil && found {
			ts.Setenv(args[0], string(line))
		}
		return err == nil && found
	})
}

// until runs a command again and again until its output matches: until REGEXP CMD ARG….
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP CMD ARG…")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var output []byte
	defer func() { ts.Logf("last output: %s", output) }()
	poll(ts, fmt.Sprint(args[1:])+" prints "+args[0], func() bool {
		cmd := command(ts, args[1:])
		output, _ = cmd.CombinedOutput() // it may fail until it is time
		return want.Match(output)
	})
}

// exitCode runs a command and wants its exit code: exitcode N CMD ARG….
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N CMD ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := command(ts, args[1:])
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its exit code says how it went
	ts.Check(os.WriteFile(ts.MkAbs("stdout.txt"), stdout.Bytes(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("stderr.txt"), stderr.Bytes(), 0o600))
	ts.Logf("stdout: %s\nstderr: %s", stdout.Bytes(), stderr.Bytes())
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	path := args[0]
	for dir := range bytes.SplitSeq([]byte(ts.Getenv("PATH")), []byte(":")) {
		candidate := filepath.Join(string(dir), args[0])
		if info, err := os.Stat(candidate); err == nil && !info.IsDir() {
			path = candidate
			break
		}
	}
	cmd := exec.Command(path, args[1:]...) //nolint:noctx // the script's own deadline ends it
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "XDG_STATE_HOME", "USER", "TMPDIR", "WORK", "BOOK", "BRIDGEFOUR_CLUSTER"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	return cmd
}

// terminate sends SIGTERM to the background processes that have a word among their arguments: terminate WORD.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: terminate WORD")
	}
	found := false
	for _, cmd := range ts.BackgroundCmds() {
		if slices.Contains(cmd.Args, args[0]) && cmd.ProcessState == nil {
			found = true
			ts.Check(cmd.Process.Signal(syscall.SIGTERM))
		}
	}
	if !found {
		ts.Fatalf("no background process has %q among its arguments", args[0])
	}
}

// lines wants a file to have N lines: lines N FILE.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines N FILE")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := bytes.Count([]byte(ts.ReadFile(args[1])), []byte("\n")); got != want {
		ts.Fatalf("%s has %d lines, want %d", args[1], got, want)
	}
}

type outsideKey struct{}

// certify writes ca.crt, NAME.crt and NAME.key: a certificate of an outside authority for a user or a machine, with a role, and the names and
// addresses of this machine: certify NAME ORGANIZATION.
func certify(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: certify NAME ORGANIZATION")
	}
	open, _ := ts.Value(outsideKey{}).(func() (*outsidetest.Authority, error))
	authority, err := open()
	ts.Check(err)
	hosts := []string{"localhost"}
	addrs, err := net.InterfaceAddrs()
	ts.Check(err)
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			hosts = append(hosts, n.IP.String())
		}
	}
	c, err := authority.Issue(pkix.Name{CommonName: args[0], Organization: args[1:]}, hosts, nil)
	ts.Check(err)
	_, _, err = outsidetest.Write(ts.MkAbs("."), args[0], c)
	ts.Check(err)
	_, err = authority.Write(ts.MkAbs("."), "ca")
	ts.Check(err)
}

// writeName makes a file whose name, and a line in it, are given as Go strings without quotes: writename 'a\xffb' TEXT.
func writeName(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: writename NAME TEXT")
	}
	name, err := strconv.Unquote(`"` + args[0] + `"`)
	ts.Check(err)
	path := ts.MkAbs(name)
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o700))
	ts.Check(os.WriteFile(path, []byte(args[1]+"\n"), 0o600))
}
