package plan

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// flowOf makes jobs of "name after after".
func flowOf(jobs ...string) (list []api.JobRequest) {
	for _, text := range jobs {
		words := strings.Fields(text)
		list = append(list, api.JobRequest{Name: words[0], After: words[1:]})
	}
	return list
}

func TestNewFlow(t *testing.T) {
	many := make([]string, state.SubmissionMax)
	for i := range many {
		many[i] = fmt.Sprintf("j%d j%d", i, i+1)
	}
	many[len(many)-1] = "j999"
	if flow, err := NewFlow(flowOf(many...)); err != nil || flow.Order[0] != 999 || flow.peer("j0") != 1000 {
		t.Errorf("of a long line, NewFlow() = %v, %v", flow, err)
	}
	for text, want := range map[string]any{
		"a,b,c":               []int{0, 1, 2},
		"c a:any b,a,b":       []int{1, 2, 0},
		"a 7 12:any,b a":      []int{0, 1},
		"a b,b c,c d,d":       []int{3, 2, 1, 0},
		"a a":                 "jobs[0].after[0]: a cycle: a -> a, ",
		"x,a b,b x c,c a:any": "jobs[3].after[0]: a cycle: a -> b -> c -> a, ",
		"first,b frist":       `jobs[1].after[0]: there is no job "frist" here; did you mean "first"? there are first, b, and numbers`,
		"a,b,a":               `jobs[2].name: "a" is the name of jobs[0] too`,
		"12":                  `jobs[0].name: "12" cannot name a job of several`,
		"a:b":                 `jobs[0].name: "a:b" cannot name`,
		"a :any":              `jobs[0].after[0]: there is no job "" here`,
	} {
		flow, err := NewFlow(flowOf(strings.Split(text, ",")...))
		if list, ok := want.([]int); ok && (err != nil || !reflect.DeepEqual(flow.Order, list)) {
			t.Errorf("NewFlow(%s) = %v, %v, want %v", text, flow, err, want)
		} else if part, ok := want.(string); ok && (err == nil || !strings.HasPrefix(err.Error(), part)) {
			t.Errorf("NewFlow(%s) = %v, %v, want %s", text, flow, err, want)
		}
	}
	for _, jobs := range [][]api.JobRequest{nil, make([]api.JobRequest, state.SubmissionMax+1), {{}}} {
		if _, err := NewFlow(jobs); err == nil {
			t.Errorf("NewFlow() of %d jobs without names is accepted", len(jobs))
		}
	}
	many[len(many)-1] = "j999 j0"
	if _, err := NewFlow(flowOf(many...)); err == nil || len(err.Error()) > 200 {
		t.Errorf("of a long cycle, NewFlow() = %v", err)
	}
}
