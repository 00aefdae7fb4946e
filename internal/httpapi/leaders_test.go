package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

func TestLeaders(t *testing.T) {
	l := httpapitest.NewFake()
	l.LeaderList = api.LeaderList{Cluster: "c1", Name: "b4", Term: 3, Leaders: []api.LeaderNode{
		{ID: 1, Address: "10.0.0.1:6550", Status: api.LeaderLeads, Votes: true, Self: true, Index: 7},
		{ID: 2, Address: "10.0.0.2:6550", Status: api.LeaderFollows, Votes: true, Index: 7},
	}}
	a := newAPI(l)
	if list := httpapitest.Decode[api.LeaderList](t, httpapitest.Ask(t, a, "GET", "/v1/leaders", "")); len(list.Leaders) != 2 || !list.Leaders[0].Self || list.Cluster != "c1" {
		t.Errorf("leaders = %+v", list)
	}
	w := httpapitest.Ask(t, a, "POST", "/v1/leaders", `{"address":"10.0.0.3:6550"}`)
	if node := httpapitest.Decode[api.LeaderNode](t, w); w.Code != http.StatusCreated || node.ID != 3 || node.Address != "10.0.0.3:6550" || w.Header().Get(headerIndex) != "8" {
		t.Errorf("add = %d %+v at %s, want 201, leader 3 at 8", w.Code, node, w.Header().Get(headerIndex))
	}
	if w := httpapitest.Ask(t, a, "DELETE", "/v1/leaders/3", ""); w.Code != http.StatusNoContent || w.Header().Get(headerIndex) != "9" {
		t.Errorf("remove = %d at %s, want 204 at 9", w.Code, w.Header().Get(headerIndex))
	}
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "DELETE", "/v1/leaders/2", "")); p.Status != http.StatusConflict || !strings.Contains(p.Detail, "majority") {
		t.Errorf("remove of a majority = %+v, want 409", p)
	}
	if w := httpapitest.Ask(t, a, "DELETE", "/v1/leaders/2?force=true", ""); w.Code != http.StatusNoContent {
		t.Errorf("forced remove = %d, want 204", w.Code)
	}
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "DELETE", "/v1/leaders/9", "")); p.Status != http.StatusNotFound {
		t.Errorf("remove of an unknown leader = %+v, want 404", p)
	}
	for body, says := range map[string]string{
		``: "", `{}`: "address", `{"address":""}`: "address", `{"address":"10.0.0.3"}`: "host:port", `{"address":":6550"}`: "host:port",
		`{"address":"http://10.0.0.3:6550"}`: "host:port", `{"address":"a:b"}`: "host:port", `{"address":"a:0"}`: "host:port",
		`{"address":"` + strings.Repeat("x", 300) + `:1"}`: "length", `{"address":"a:1","id":3}`: "id",
	} {
		if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "POST", "/v1/leaders", body)); p.Status/100 != 4 || !strings.Contains(p.Error(), says) {
			t.Errorf("add %s = %d %s, want a refusal with %q", body, p.Status, p.Error(), says)
		}
	}
	for _, target := range []string{"/v1/leaders/x", "/v1/leaders/-1", "/v1/leaders/1?force=maybe", "/v1/leaders/1?froce=true"} {
		if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "DELETE", target, "")); p.Status != http.StatusUnprocessableEntity {
			t.Errorf("DELETE %s = %d, want 422", target, p.Status)
		}
	}
	if got := httpapitest.Ask(t, newAPI(httpapitest.NewFake()), "GET", "/v1/leaders", "").Body.String(); !strings.Contains(got, `"leaders":[]`) {
		t.Errorf("no leaders = %s, want an empty list", got)
	}
}

func TestRaftState(t *testing.T) {
	two, one := uint64(2), uint64(1)
	heard := time.UnixMilli(1700000000456)
	for want, c := range map[string]api.Consensus{
		`{"ownId":0,"term":4,"ownState":{"Follower":{}},"votedFor":1,"lastElectionEpoch":null,"lastHeartbeatEpoch":1700000000456,"currentLeader":1,` +
			`"peers":[{"id":1,"schema":"http","host":"10.0.0.2","port":6550},{"id":2,"schema":"http","host":"::1","port":6551}]}`: {
			ID: 1, Term: 4, Role: "Follower", VotedFor: &two, Leader: &two, LastHeartbeat: &heard,
			Peers: []api.Peer{{ID: 2, Host: "10.0.0.2", Port: 6550}, {ID: 3, Host: "::1", Port: 6551}},
		},
		`{"ownId":0,"term":5,"ownState":{"Candidate":{}},"votedFor":0,"lastElectionEpoch":1700000000456,"lastHeartbeatEpoch":null,"currentLeader":null,"peers":[]}`: {
			ID: 1, Term: 5, Role: "Candidate", VotedFor: &one, LastElection: &heard,
		},
	} {
		l := httpapitest.NewFake()
		l.ConsensusState = c
		if got := strings.TrimSpace(httpapitest.Ask(t, newAPI(l), "GET", "/raft/state", "").Body.String()); got != want {
			t.Errorf("raft state = %s, want %s", got, want)
		}
	}
}
