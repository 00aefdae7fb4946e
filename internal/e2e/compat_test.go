package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestOriginalRoutes drives leader and worker as the original system's clients do: DelayedWordCount over two files.
func TestOriginalRoutes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	file := c.path("worker.addr")
	w := c.worker("worker-1", "--address-file", file)
	worker := "http://" + w.addressIn(file)
	c.untilAlive(1)
	files := book(t, c.path("in"), 2)
	leader := "http://" + c.address

	wantAnswer(c, http.MethodGet, leader+"/cluster",
		`{"status":{"type":"Healthy"},"workers":{"1":{"id":1,"slots":[{"id":0,"status":{"type":"Missing"}},{"id":1,"status":{"type":"Missing"}}],`+
			`"status":{"type":"Alive"}}},"slots":{"open":2,"total":2}}`)
	wantAnswer(c, http.MethodGet, leader+"/job/status/1", `{"type":"Missing"}`)
	wantAnswer(c, http.MethodGet, leader+"/job/list", `[]`)

	body := fmt.Sprintf(`{"name":"Example Job","jobClass":{"type":"com.chollinger.bridgefour.jobs.example.DelayedWordCountBridgeFourJob"},"input":%q,"output":%q,`+
		`"userSettings":{"timeout":"1"}}`, c.path("in"), c.path("out"))
	code, answer := c.request(http.MethodPost, leader+"/job/start", body)
	if code != http.StatusOK {
		t.Fatalf("start = %d %s", code, answer)
	}
	details := map[string]any{}
	if err := json.Unmarshal([]byte(answer), &details); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"jobId", "jobConfig", "executionStatus", "assignmentStatus", "assignedTasks", "openTasks", "completedTasks"} {
		if _, ok := details[key]; !ok {
			t.Errorf("no %s in %s", key, answer)
		}
	}
	untilAnswer(c, leader+"/job/status/1", `{"type":"Done"}`)
	wantAnswer(c, http.MethodGet, leader+"/status/1", `{"type":"Done"}`)
	wantAnswer(c, http.MethodGet, leader+"/job/list", `[]`)
	wantOutput(t, c.path("out"), make([][]byte, len(files)), "_RESULT")
	wantCounts(t, files, readFile(t, c.path("out", "_RESULT")))
	_, answer = c.request(http.MethodGet, leader+"/job/data/1", "")
	if !json.Valid([]byte(answer)) || !strings.Contains(answer, "Opticks") {
		t.Errorf("data = %.200s…", answer)
	}
	untilAnswer(c, worker+"/task/status/0", `{"type":"Done"}`)
	untilAnswer(c, leader+"/cluster",
		`{"status":{"type":"Healthy"},"workers":{"1":{"id":1,"slots":[{"id":0,"status":{"type":"Done"}},{"id":1,"status":{"type":"Done"}}],`+
			`"status":{"type":"Alive"}}},"slots":{"open":2,"total":2}}`)
	_, answer = c.request(http.MethodGet, leader+"/job/1", "")
	if !strings.Contains(answer, `"workerId":1`) || strings.Contains(answer, `"workerId":0`) {
		t.Errorf("job = %s, want the worker of each task", answer)
	}

	// One that runs for long is seen to run. A stopped job leaves no files.
	body = strings.ReplaceAll(strings.ReplaceAll(body, `"1"`, `"600"`), c.path("out"), c.path("out2"))
	if code, answer = c.request(http.MethodPost, leader+"/start", body); code != http.StatusOK {
		t.Fatalf("start = %d %s", code, answer)
	}
	const running = `{"type":"InProgress"}`
	untilAnswer(c, leader+"/job/status/2", running)
	untilAnswer(c, worker+"/task/status/0", running)
	untilAnswer(c, worker+"/worker/state",
		`{"id":1,"slots":[{"id":0,"status":{"type":"InProgress"}},{"id":1,"status":{"type":"InProgress"}}],"status":{"type":"Alive"}}`)
	wantAnswer(c, http.MethodGet, leader+"/job/data/2", running)
	code, answer = c.request(http.MethodGet, leader+"/job/list", "")
	if code != http.StatusOK || !strings.Contains(answer, `"jobId":2`) || !strings.Contains(answer, `"assignmentStatus":{"type":"FullyAssigned"}`) {
		t.Errorf("list = %d %s", code, answer)
	}
	code, answer = c.request(http.MethodPut, leader+"/job/stop/2", "")
	if code != http.StatusOK || !slices.Contains([]string{`{"type":"Halted"}`, `{"type":"InProgress"}`, `{"type":"Error"}`}, strings.TrimSpace(answer)) {
		t.Errorf("stop = %d %s", code, answer)
	}
	until(t, "the stopped job is over", func() bool { return c.job(2).IsEnded() })
	wantNames(t, c.path("out2"))
	wantAnswer(c, http.MethodPut, leader+"/job/stop/99", `{"type":"Missing"}`)
	code, answer = c.request(http.MethodGet, leader+"/raft/state", "")
	if code != http.StatusOK || !strings.Contains(answer, `"ownState":{"Leader":{}}`) {
		t.Errorf("raft state = %d %s", code, answer)
	}
}

func wantAnswer(c *cluster, method, url, want string) {
	c.t.Helper()
	if code, got := c.request(method, url, ""); code != http.StatusOK || strings.TrimSpace(got) != want {
		c.t.Errorf("%s %s = %d %s, want %s", method, url, code, got, want)
	}
}

func untilAnswer(c *cluster, url, want string) {
	c.t.Helper()
	var got string
	defer func() { c.t.Logf("%s answered %s", url, got) }()
	until(c.t, url+" answers "+want, func() bool {
		_, got = c.request(http.MethodGet, url, "")
		return strings.TrimSpace(got) == want
	})
}
