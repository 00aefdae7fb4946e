package jobs

import "testing"

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
