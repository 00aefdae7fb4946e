package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/bridgefour/bridgefour/internal/state"
)

// replayProgram is built within the baseline. It reads logs, each a count and its entries, and prints the snapshot that each results in.
// Half way through a log it goes on from its own snapshot. All are preceded by their lengths.
const replayProgram = `package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"os"

	"github.com/bridgefour/bridgefour/internal/state"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		count, err := binary.ReadUvarint(in)
		if err == io.EOF {
			must(0, out.Flush())
			return
		}
		m := state.New()
		var result state.Result
		var b bytes.Buffer
		for i := range must(count, err) {
			entry := make([]byte, must(binary.ReadUvarint(in)))
			must(io.ReadFull(in, entry))
			must(0, m.Apply(i+1, entry, &result))
			if b.Reset(); i == count/2 {
				must(m.Snapshot().WriteTo(&b))
				m = must(state.Restore(&b))
			}
		}
		must(m.Snapshot().WriteTo(&b))
		must(out.Write(binary.AppendUvarint(nil, uint64(b.Len()))))
		must(b.WriteTo(out))
	}
}
`

// upgradeReplay applies random logs of the old feature level with both versions: leaders of one cluster must come to the same state, byte for
// byte, or a snapshot of one would change the other.
func upgradeReplay(t *testing.T, old baseline) { //nolint:thelper // a subtest
	const logs, entries = 500, 40
	var input, want bytes.Buffer
	for seed := range uint64(logs) {
		input.Write(protowire.AppendVarint(nil, entries))
		m, result, snapshot := state.New(), state.Result{}, bytes.Buffer{}
		log := randomLog{level: old.level, rng: rand.New(rand.NewPCG(seed, 0)), now: 1000, lease: 1}
		for i := range uint64(entries) {
			entry := log.next()
			if i == 0 && old.level > 0 {
				entry = state.RaiseLevel(log.now, old.level, "v0").Data()
			}
			input.Write(protowire.AppendVarint(nil, uint64(len(entry))))
			input.Write(entry)
			if err := m.Apply(i+1, entry, &result); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := m.Snapshot().WriteTo(&snapshot); err != nil {
			t.Fatal(err)
		}
		want.Write(protowire.AppendVarint(nil, uint64(snapshot.Len())))
		want.Write(snapshot.Bytes())
	}
	write(t, filepath.Join(old.dir, "cmd", "replay", "main.go"), replayProgram)
	cmd := exec.CommandContext(t.Context(), "go", "run", "./cmd/replay")
	cmd.Dir, cmd.Stdin = old.dir, &input
	got, err := cmd.Output()
	if err != nil {
		failed, _ := errors.AsType[*exec.ExitError](err)
		t.Fatalf("the baseline does not read the logs: %v: %s", err, failed.Stderr)
	}
	for seed := range logs {
		size, n := protowire.ConsumeVarint(got)
		wanted, m := protowire.ConsumeVarint(want.Bytes())
		if n <= 0 || uint64(len(got)-n) < size {
			t.Fatalf("log %d: no snapshot of the baseline", seed)
		}
		if theirs, ours := got[n:n+int(size)], want.Next(m + int(wanted))[m:]; !bytes.Equal(theirs, ours) {
			t.Fatalf("log %d: the snapshot of the baseline is %x, and of this version %x", seed, theirs, ours)
		}
		got = got[n+int(size):]
	}
}

// randomLog makes entries of a feature level, many of whose commands are refused.
type randomLog struct {
	level uint32
	rng   *rand.Rand
	now   int64
	lease uint64
}

func (l *randomLog) next() []byte {
	if l.now += int64(l.rng.IntN(2000)) - 200; l.rng.IntN(60) == 0 {
		l.now += 24 * 3600 * 1000 // keys expire
	}
	e := state.NewEntry(l.now, l.level)
	e.Fence = state.NewLease(1, l.lease)
	for range 1 + l.rng.IntN(6) {
		l.command(e)
	}
	return e.Data()
}

func (l *randomLog) command(e *state.Entry) {
	r := l.rng
	id, stage, key := state.JobID(1+r.IntN(4)), uint32(max(0, r.IntN(6)-3)), []string{"", "a", "b", "c"}[r.IntN(4)]
	l.lease++
	lease := state.NewLease(1, l.lease)
	switch r.IntN(13) {
	case 0, 1:
		e.Submit(key, fmt.Sprint("uid", l.lease), []string{"", "ann"}[r.IntN(2)], l.spec())
	case 2, 3, 4, 5:
		var list []state.Completion
		for task := range uint64(1 + r.IntN(5)) {
			l.lease++
			list = append(list, state.Completion{
				Index: task, Lease: state.NewLease(1, l.lease-uint64(r.IntN(8)/7*3)), Size: uint64(r.IntN(3)), Records: uint64(r.IntN(2)),
				Checksum: r.Uint64(), InputBytes: 3, Started: uint32(r.IntN(2)), Millis: uint32(r.IntN(2)),
			})
		}
		e.Done(state.WorkerID(r.IntN(3)), id, stage, list)
	case 6, 7:
		kind := state.FailureKind(1 + max(r.IntN(8), r.IntN(4)))
		e.Failed(id, stage, uint64(r.IntN(3)), state.Failure{Kind: kind, Worker: 1, Lease: lease, Message: kind.String()}, nil)
	case 8:
		e.Stop(key, id)
	case 9:
		e.Retry(key, id)
	case 10:
		e.Forget(key, id)
		e.Register(key, &state.WorkerInfo{Identity: []string{"p", "q"}[r.IntN(2)], Host: "h", Labels: map[string]string{"zone": "1"}})
	case 11:
		e.SetWorker(key, state.WorkerID(r.IntN(4)), state.WorkerStatus(r.IntN(4)))
	case 12:
		e.OutputLost(id, stage, uint64(r.IntN(3)), lease-state.Lease(r.IntN(4)), 1, "gone")
	}
}

func (l *randomLog) spec() *state.Spec {
	r := l.rng
	s := &state.Spec{
		Name: []string{"x", "y"}[r.IntN(2)], Output: []string{"/a", "/a/b", "/c", "/d", fmt.Sprint("/own/", l.lease)}[r.IntN(5)],
		Spool: r.IntN(2) == 0, Collect: r.IntN(2) == 0, KeepPartial: r.IntN(2) == 0, FirstSuccess: r.IntN(3) == 0,
		Retries: uint32(r.IntN(3)), Settings: map[string]string{"k": "v", "": ""},
	}
	if tasks := []uint64{0, 1, 2, 4, 300}[r.IntN(5)]; tasks > 0 {
		s.Input = state.Input{Kind: state.InputRange, Tasks: tasks}
	}
	return s
}
