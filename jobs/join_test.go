package jobs

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestIsUnder(t *testing.T) {
	for _, test := range []struct {
		input, pattern string
		want           bool
	}{
		{"/data/customers.csv", "customers.csv", true},
		{"/data/old-customers.csv", "customers.csv", false},
		{"/data/customers/1.csv", "customers", true},
		{"/data/customers/1.csv", "customers/", true},
		{"/data/customers/eu/1.csv", "data/customers", true},
		{"/data/customers/1.csv", "/data/customers", true},
		{"/data/customers/1.csv", "/customers", false},
		{"/data/c1.csv", "c?.csv", true},
		{"/data/c1.csv", "data/c*.csv", true},
		{"s3://bucket/right/1.csv", "right", true},
		{"", "right", false},
	} {
		if got := isUnder(test.input, test.pattern); got != test.want {
			t.Errorf("isUnder(%s, %s) = %v, want %v", test.input, test.pattern, got, test.want)
		}
	}
}

// TestRightLinesSpill: lines that do not fit into memory come from the file, in order, as often as they are asked for, and those of the next key do not follow them.
func TestRightLinesSpill(t *testing.T) {
	r := rightLines{memory: 100, temp: t.TempDir()}
	for key, n := range []int{50, 3, 0, 40, 1000} {
		r.begin()
		var want []string
		for i := range n {
			line := strings.Repeat(fmt.Sprint(key), i%30)
			if err := r.add([]byte(line)); err != nil {
				t.Fatal(err)
			}
			want = append(want, line)
		}
		if len(r.text)+8*len(r.ends) > 100 || r.spilled != (n > 3) {
			t.Errorf("%d lines: %d bytes in memory, spilled %v", n, len(r.text), r.spilled)
		}
		for range 2 {
			var got []string
			if err := r.each(func(line []byte) error {
				got = append(got, string(line))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("key %d: %q, want %q", key, got, want)
			}
		}
	}
	if files, err := os.ReadDir(r.temp); err != nil || len(files) > 0 {
		t.Errorf("files with names: %v, %v", files, err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
