package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/jobs"
)

const nobody = 65534

// asNobody returns a fixture whose commands and files are of another user, with a folder of that user for the output.
func asNobody(t *testing.T, runAs string, job *wire.Job) *fixture {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run commands as another user")
	}
	r := New(Config{
		Jobs: jobs.All(), Users: Users{RunAs: runAs, Host: "here"}, Confinement: keeper.Confinement{NoNewPrivileges: true},
		Temp: filepath.Join(os.TempDir(), TempPrefix+"test-"+fmt.Sprint(os.Getpid())),
	})
	r.host, r.loader.Host = "here", "here"
	f := &fixture{t: t, slot: r.NewSlot(), job: job, output: t.TempDir() + "/out"}
	t.Cleanup(func() { closeSlot(t, f.slot) })
	if err := os.Mkdir(f.output, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(f.output, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(f.output); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	job.Id, job.Uid, job.Output, job.User = 12, "uid", f.output, "nobody"
	return f
}

// TestRunAs: the command and its output are of the user, who reads no file of root through the engine.
func TestRunAs(t *testing.T) {
	for _, runAs := range []string{Submitter, "nobody", fmt.Sprint(nobody)} {
		f := asNobody(t, runAs, &wire.Job{Dir: "/"})
		dir := filepath.Dir(f.output)
		open, secret := writeFile(t, dir, "open", "text\n"), writeFile(t, dir, "secret", "of root\n")
		if err := os.Chmod(open, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(secret, 0o600); err != nil {
			t.Fatal(err)
		}
		f.job.Program = commandProgram("sh", "-c", `id -u; echo $USER; stat -c %u $TMPDIR; echo x >$TMPDIR/file; cat`)
		out := f.run(t.Context(), fileSplit(open, 0, 5))
		f.want(out, "65534\nnobody\n65534\ntext\n")
		for path := string(out.File); path != dir; path = filepath.Dir(path) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != nobody {
				t.Errorf("%s is of user %d, want %d", path, st.Uid, nobody)
			}
		}
		if err := os.RemoveAll(f.output + "/_temporary"); err != nil {
			t.Fatal(err)
		}
		f.wantFailure(f.run(t.Context(), fileSplit(secret, 0, 8)), wire.FailureKind_BAD_INPUT, secret, "permission denied (on here)")
		f.wantFailure(f.run(t.Context(), fileSplit(secret, 0, 4)), wire.FailureKind_BAD_INPUT, "permission denied (on here)")
		f.job = &wire.Job{Id: 12, Uid: "uid", Output: f.output, User: "nobody", Program: builtin("grep"), Settings: map[string]string{"pattern": "."}}
		f.wantFailure(f.run(t.Context(), fileSplit(secret, 0, 8)), wire.FailureKind_BAD_INPUT, "permission denied (on here)")
		f.job = &wire.Job{Id: 12, Uid: "uid", Output: "/root/b4-run-as-test", User: "nobody", Program: builtin("grep"), Settings: map[string]string{"pattern": "."}}
		if failure := f.run(t.Context(), fileSplit(open, 0, 5)).Failure; failure.GetKind() != wire.FailureKind_OUTPUT_ERROR ||
			!strings.Contains(failure.GetMessage(), "permission denied for user 65534") {
			t.Errorf("an output in /root: %v", failure)
		}
		f.job = &wire.Job{Id: 12, Uid: "uid", Output: f.output, Dir: "/root", User: "nobody", Program: commandProgram("pwd")}
		f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_BAD_PROGRAM, `user "nobody", who runs the job's commands on here`, `working directory "/root"`)
	}
}

func TestRunAsWhom(t *testing.T) {
	for _, test := range []struct{ runAs, user, want string }{
		{Submitter, "root", "the worker on here runs no commands as root"},
		{Submitter, "0", `user "0" is not known on here`},
		{Submitter, "no such user", `user "no such user" is not known on here: create the account there, or start the worker with --run-as NAME`},
		{Submitter, "", "job 12 has no user"},
		{"no such user", "nobody", `user "no such user" is not known on here`},
		{"root", "nobody", "the worker on here runs no commands as root"},
	} {
		f := asNobody(t, test.runAs, &wire.Job{Program: commandProgram("id")})
		f.job.User = test.user
		f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_BAD_PROGRAM, test.want)
	}
}
