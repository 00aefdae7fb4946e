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
		{Input: Input{Kind: InputFiles, SplitSize: 64}},
		{Pack: &Packing{}},
		{Pack: &Packing{Size: 1}},
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

// TestRequestSumOfFitted: what the leader has chosen for the slots does not make another request.
func TestRequestSumOfFitted(t *testing.T) {
	want := (&Spec{Input: Input{Kind: InputFiles, SplitSize: 64}}).RequestSum("ann")
	for _, spec := range []*Spec{
		{Input: Input{Kind: InputFiles, SplitSize: 10}, SplitMax: 64},
		{Input: Input{Kind: InputFiles, SplitSize: 10, Tasks: 3, Blocks: []Block{{Packs: []byte{1}}}}, SplitMax: 64, Pack: &Packing{Fitted: true}},
		{Input: Input{Kind: InputNone, Tasks: 1}, Deferred: &Deferred{Split: 64}, SplitMax: 64},
	} {
		if got := spec.RequestSum("ann"); got != want {
			t.Errorf("RequestSum of %+v is another one", spec)
		}
	}
}
