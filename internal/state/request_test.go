package state

import "testing"

// TestRequestSum: what the user can choose makes another request.
func TestRequestSum(t *testing.T) {
	sums := map[uint64]*Spec{}
	for _, spec := range []*Spec{
		{},
		{Records: "csv"},
		{Records: "fasta"},
		{Header: 1},
		{Records: "csv", Header: 1},
		{GraceMS: 1},
		{Env: map[string]string{"A": "1"}},
		{Env: map[string]string{"A": "2"}},
		{Secrets: []Secret{{Name: "A"}}},
		{Sandbox: true},
		{NoNetwork: true},
		{NameParts: "{}"},
		{Reduce: "cat"},
		{Reduce: "cat", Combine: "uniq"},
		{Partitions: 2},
		{Retries: 1},
		{Memory: 1},
		{RetryDelayMS: 1},
		{DelayMS: 1},
		{Resources: []Resource{{"gpu", 1}}},
		{Resources: []Resource{{"gpu", 2}}},
		{MaxRunning: 1},
		{MaxFails: &FailLimit{}},
		{MaxFails: &FailLimit{N: 1}},
		{MaxFails: &FailLimit{N: 1, Percent: true}},
	} {
		if other := sums[spec.RequestSum("ann")]; other != nil {
			t.Errorf("%+v and %+v are the same request", spec, other)
		}
		sums[spec.RequestSum("ann")] = spec
	}
}
