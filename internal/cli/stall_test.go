package cli

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

// A pause is long if none of the other tasks of the stage took nearly as long, or if no task runs.
func TestPause(t *testing.T) {
	const s = time.Second
	type look struct {
		after               time.Duration
		done, running, open uint64
		want                bool
	}
	for name, looks := range map[string][]look{
		"short tasks, then none":  {{0, 0, 2, 9, false}, {s, 5, 2, 4, false}, {59 * s, 5, 2, 4, false}, {s, 5, 2, 4, true}, {60 * s, 5, 2, 4, false}},
		"another pause":           {{0, 0, 2, 9, false}, {s, 5, 2, 4, false}, {60 * s, 5, 2, 4, true}, {s, 6, 2, 3, false}, {60 * s, 6, 2, 3, false}, {550 * s, 6, 2, 3, true}},
		"long tasks":              {{0, 0, 2, 9, false}, {600 * s, 2, 2, 7, false}, {600 * s, 2, 2, 7, false}, {5400 * s, 2, 2, 7, true}},
		"the first tasks are run": {{0, 0, 2, 9, false}, {9000 * s, 0, 2, 9, false}},
		"no task is run":          {{0, 0, 0, 9, false}, {60 * s, 0, 0, 9, true}},
		"there is none to be run": {{0, 4, 0, 0, false}, {900 * s, 4, 0, 0, false}},
	} {
		var p pause
		now := time.Unix(1, 0)
		for i, l := range looks {
			now = now.Add(l.after)
			job := api.Job{Status: api.JobRunning, Stages: []api.Stage{{Name: "map", Done: l.done, Running: l.running, Open: l.open}}}
			if got := p.isLong(now, &job); got != l.want {
				t.Errorf("%s: isLong() = %v at look %d, want %v", name, got, i, l.want)
			}
		}
	}
}

// Only a silence that lasts is printed, and then its end.
func TestSlowReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := os.CreateTemp(t.TempDir(), "stderr")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // only read from here on
		r := &slowReport{out: newConsole(f)}
		for _, d := range []time.Duration{slowMin - 1, slowMin + 1, slowMin - 1} {
			r.note(client.Reconnect{Err: errors.New("no data"), Tries: followRetryFor})
			time.Sleep(d) // of the bubble
			synctest.Wait()
			r.note(client.Reconnect{After: d})
		}
		r.note(client.Reconnect{Err: errors.New("no data"), Tries: followRetryFor})
		r.stop()
		time.Sleep(2 * slowMin)
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "no data") || !strings.Contains(lines[1], "answers again after 10s") {
			t.Errorf("printed %q, want one silence and its end", lines)
		}
	})
}
