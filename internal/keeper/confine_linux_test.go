package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dialEnv makes the test's process try sockets of several kinds.
const dialEnv = "B4_KEEPER_TEST_DIAL"

func dial() {
	for _, network := range []string{"tcp", "udp", "unix"} {
		_, err := net.Dial(network, map[bool]string{true: "/b4-no-socket", false: "127.0.0.1:1"}[network == "unix"]) //nolint:noctx // it does not wait
		fmt.Println(network, errors.Is(err, syscall.EACCES))
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	fmt.Println("pair", pair[0] > 0, err)
}

// confined returns a fixture with a folder for temporary files, and commands that are confined so.
func confined(t *testing.T, c Confinement) *fixture {
	t.Helper()
	f := newFixture(t)
	f.keeper.Temp, f.confinement = filepath.Join(t.TempDir(), "b4", "temp"), c
	if err := Check(c, f.keeper.Temp); err != nil {
		t.Skipf("this kernel cannot do it: %v", err)
	}
	return f
}

func (f *fixture) want(script, output string) {
	f.Helper()
	f.script(strings.ReplaceAll(script, "$TMPDIR", f.keeper.Temp))
	if _, err := f.keeper.Wait(); err != nil {
		f.Fatalf("%s: %v", script, err)
	}
	if got := f.output(); got != output {
		f.Errorf("%s\nhas written %q, want %q", script, got, output)
	}
}

// TestTemp: the folder for temporary files is empty when a command starts, whatever the one before it did there.
func TestTemp(t *testing.T) {
	f := confined(t, Confinement{})
	for _, leave := range []string{
		"echo x >$TMPDIR/file; mkdir -p $TMPDIR/a/b; ln -s / $TMPDIR/link",
		"mkdir -p $TMPDIR/a/b; echo x >$TMPDIR/a/b/c; chmod 0 $TMPDIR/a/b $TMPDIR/a $TMPDIR",
		"rmdir $TMPDIR", "mv $TMPDIR $TMPDIR.old", "rmdir $TMPDIR; ln -s / $TMPDIR", "rmdir $TMPDIR; echo x >$TMPDIR",
		"cd $TMPDIR; exec setsid sh -c 'while :; do echo x >$$; done & sleep 0.01'",
	} {
		f.want(leave, "")
		f.want("cd -P $TMPDIR && pwd && ls -A && stat -c %a . && echo x >file", f.keeper.Temp+"\n700\n")
	}
	f.want("echo x >$TMPDIR/last", "")
	if err := f.keeper.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(f.keeper.Temp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close, the folder: %v", err)
	}
}

func TestNoNewPrivileges(t *testing.T) {
	f := confined(t, Confinement{})
	status := "grep NoNewPrivs /proc/self/status"
	f.want(status, "NoNewPrivs:\t0\n")
	f.confinement.NoNewPrivileges = true
	f.want(status, "NoNewPrivs:\t1\n")
	f.confinement.NoNewPrivileges = false // needs another process
	f.want(status, "NoNewPrivs:\t0\n")
}

func TestSandbox(t *testing.T) {
	f := confined(t, Confinement{Sandbox: true})
	own := f.path("own")
	if err := os.WriteFile(own, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(script string) string { return "(" + script + ") 2>/dev/null && echo done || echo refused; " }
	f.want(strings.ReplaceAll(
		try("echo x >FILE")+try(": >>FILE")+try("rm FILE")+try("mv FILE $TMPDIR/x")+try("ln FILE $TMPDIR/x")+try("truncate -s 0 FILE")+try("mkdir FILE.d")+
			try("echo x >/tmp/b4-sandbox")+try(fmt.Sprintf("kill -CONT %d", os.Getpid())), "FILE", own), strings.Repeat("refused\n", 9))
	f.want("cat "+own, "content")
	f.want(try("echo x >$TMPDIR/file")+try("mkdir $TMPDIR/d")+try("mv $TMPDIR/file $TMPDIR/d")+try("cat $TMPDIR/d/file >/dev/null")+
		try("sleep 10 & kill $!")+try("rm -r $TMPDIR/d"), strings.Repeat("done\n", 6))
	f.want("echo x >$TMPDIR/left", "")
	f.want("ls -A $TMPDIR", "")
}

func TestNoNetwork(t *testing.T) {
	f := confined(t, Confinement{NoNetwork: true})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.want(dialEnv+"=1 exec "+self, "tcp true\nudp true\nunix true\npair true <nil>\n")
}

// TestConfinementError: what cannot be had is an error of the start, with its name.
func TestConfinementError(t *testing.T) {
	temp := filepath.Join(t.TempDir(), "file", "temp")
	if err := os.WriteFile(filepath.Dir(temp), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := Check(Confinement{}, temp)
	if _, ok := errors.AsType[*ConfinementError](err); !ok || !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), temp) {
		t.Errorf("Check() below a file = %v", err)
	}
}

// TestUser: a command of another user has nothing of root, a folder for temporary files of its own, and ends like any other.
func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run commands as another user")
	}
	f := confined(t, Confinement{NoNewPrivileges: true})
	for d := filepath.Dir(filepath.Dir(f.keeper.Temp)); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	try := "id -u; id -G; grep CapEff /proc/self/status; stat -c %u:%a $TMPDIR; echo x >$TMPDIR/file && cat $TMPDIR/file; ls -A /root 2>&1 | grep -c denied"
	const root, caps = "0\n", "CapEff:\t0000000000000000\n"
	f.dir = "/"
	f.user = &syscall.Credential{Uid: 65534, Gid: 65533, Groups: []uint32{65533, 7}}
	f.want(try, "65534\n65533 7\n"+caps+"65534:700\nx\n1\n")
	f.user = &syscall.Credential{Uid: 65532, Gid: 65532}
	f.want(try, "65532\n65532\n"+caps+"65532:700\nx\n1\n")
	f.want("rmdir $TMPDIR 2>/dev/null || chmod 0 $TMPDIR; setsid sleep 1000 & setsid sh -c 'trap \"\" TERM; sleep 1000' &", "")
	f.wantNone()
	f.want(try, "65532\n65532\n"+caps+"65532:700\nx\n1\n")
	f.user = nil
	f.want("id -u; stat -c %u:%a $TMPDIR; touch $TMPDIR/x", root+"0:700\n")
}
