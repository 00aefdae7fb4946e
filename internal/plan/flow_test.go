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

func TestOrder(t *testing.T) {
	many := make([]string, state.SubmissionMax)
	for i := range many {
		many[i] = fmt.Sprintf("j%d j%d", i, i+1)
	}
	many[len(many)-1] = "j999"
	if order, peers, err := Order(flowOf(many...)); err != nil || order[0] != 999 || peers["j0"] != 1000 {
		t.Errorf("of a long line, Order() = %v, %v", order, err)
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
		order, _, err := Order(flowOf(strings.Split(text, ",")...))
		if list, ok := want.([]int); ok && (err != nil || !reflect.DeepEqual(order, list)) {
			t.Errorf("Order(%s) = %v, %v, want %v", text, order, err, want)
		} else if part, ok := want.(string); ok && (err == nil || !strings.HasPrefix(err.Error(), part)) {
			t.Errorf("Order(%s) = %v, %v, want %s", text, order, err, want)
		}
	}
	for _, jobs := range [][]api.JobRequest{nil, make([]api.JobRequest, state.SubmissionMax+1), {{}}} {
		if _, _, err := Order(jobs); err == nil {
			t.Errorf("Order() of %d jobs without names is accepted", len(jobs))
		}
	}
	many[len(many)-1] = "j999 j0"
	if _, _, err := Order(flowOf(many...)); err == nil || len(err.Error()) > 200 {
		t.Errorf("of a long cycle, Order() = %v", err)
	}
}
