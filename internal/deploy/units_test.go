package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bootScript does in a system what docs/containers.md says of the units, in its folder /mnt.
const bootScript = `exec >/mnt/log 2>&1
set -eux
leader=unix:/var/lib/bridgefour-leader/leader.sock
drop_in() { mkdir -p /run/systemd/system/bridgefour-$1.service.d; printf '[Service]\n%s\n' "$2" >/run/systemd/system/bridgefour-$1.service.d/test.conf; }
echo "127.0.0.1 localhost $(hostname)" >/etc/hosts
mkdir -p /etc/bridgefour /shared
chmod 1777 /shared
drop_in worker ReadWritePaths=/shared
drop_in leader "ReadWritePaths=/shared
WatchdogSec=5s"
systemctl daemon-reload
echo BRIDGEFOUR_LISTEN=0.0.0.0:6550 >/etc/bridgefour/leader.env
systemctl start bridgefour-leader
bridgefour token create --role worker --cluster $leader | sed s/^/BRIDGEFOUR_JOIN=/ | install -m 600 /dev/stdin /etc/bridgefour/worker.env
systemctl start bridgefour-worker
bridgefour submit --quiet --wait --cluster $leader --output /shared/out --range 1-3 -- sh -c 'if touch /usr/x /var/lib/x "$0"; then echo writes; fi; id -u' /var/lib/bridgefour-leader/x
systemctl show --property UID --value bridgefour-worker >/mnt/user
sort -u /shared/out/part-* >/mnt/users
job=$(bridgefour submit --quiet --cluster $leader --output /shared/drained --range 1-1 -- sh -c 'touch /shared/begun; sleep 2; echo drained')
until [ -e /shared/begun ]; do sleep 0.1; done
systemctl stop bridgefour-worker # lets it end
systemctl start bridgefour-worker
bridgefour wait --cluster $leader $job
cat /shared/drained/part-00000 >/mnt/drained
bridgefour tasks --cluster $leader --json $job >/mnt/tasks
set +x
systemctl kill --kill-who=main --signal STOP bridgefour-leader
until [ "$(systemctl show --property NRestarts --value bridgefour-leader)" -ge 1 ]; do sleep 0.5; done
until bridgefour cluster --cluster $leader | grep '1 alive'; do sleep 0.5; done
bridgefour job --cluster $leader $job
systemctl stop bridgefour-worker bridgefour-leader
systemctl list-units --failed --no-legend --plain 'bridgefour*' >/mnt/failed
`

// TestUnitsRun boots a system with the programs of this one, and runs a leader and a worker in it as services.
func TestUnitsRun(t *testing.T) {
	needRoot(t, "boot a system")
	for _, name := range []string{"systemd-nspawn", "systemctl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("left out: there is no %s on this machine", name)
		}
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(dir, name)) // none: empty
		return strings.TrimSpace(string(text))
	}
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = "../.."
		out, err := cmd.CombinedOutput()
		if err != nil && name == "go" {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	run("go", "build", "-o", filepath.Join(dir, "bin", "bridgefour"), "./cmd/bridgefour")
	units, err := filepath.Abs("../../deploy/systemd")
	if err != nil {
		t.Fatal(err)
	}
	write("boot.sh", bootScript)
	write("boot.service", "[Unit]\nSuccessAction=poweroff-force\nFailureAction=poweroff-force\n[Service]\nType=oneshot\nTimeoutStartSec=4min\nExecStart=/bin/sh -c 'sh /mnt/boot.sh; echo $? >/mnt/code'\n")
	boot := func(unit string) string {
		args := []string{
			"--volatile=yes", "--directory=/", "--register=no", "--keep-unit", "--private-network", "--machine=" + filepath.Base(filepath.Dir(dir)), "--quiet", "--console=pipe",
			"--bind=" + dir + ":/mnt", "--overlay-ro=/usr/bin:" + dir + "/bin:/usr/bin", "--bind-ro=" + dir + "/boot.service:/run/systemd/system/boot.service",
		}
		for _, name := range []string{"leader", "worker"} {
			args = append(args, "--bind-ro="+units+"/bridgefour-"+name+".service:/run/systemd/system/bridgefour-"+name+".service")
		}
		return run("systemd-nspawn", append(args, "--boot", "systemd.unit="+unit, "systemd.mask=systemd-networkd-wait-online.service")...) // there is no network
	}
	console := boot("boot.service")
	if read("log") == "" {
		t.Skipf("left out: systemd does not boot here: %s", lastLine(console))
	}
	if read("code") != "0" {
		t.Fatalf("exit code %q: %s", read("code"), read("log"))
	}
	if user := read("user"); user == "0" || read("users") != user {
		t.Errorf("the commands say %q, want only the user of the worker, %s", read("users"), user)
	}
	if read("drained") != "drained" || !strings.Contains(read("tasks"), `"attempts":1,`) {
		t.Errorf("the command that was drained has written %q: %s", read("drained"), read("tasks"))
	}
	if failed := read("failed"); failed != "" {
		t.Errorf("failed: %s", failed)
	}
	t.Log(read("log"))
}
