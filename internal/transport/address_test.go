package transport

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	tests := []struct{ in, want string }{
		{"host", "host:6550"},
		{" http://host:7000/ ", "host:7000"},
		{"10.0.0.1", "10.0.0.1:6550"},
		{"[::1]:7", "[::1]:7"},
		{"::1", "[::1]:6550"},
		{"[fe80::1]", "[fe80::1]:6550"},
		{"", ""},
		{"http://", ""},
		{":6550", ""},
		{"host:0", ""},
		{"host:99999", ""},
		{"host:http", ""},
		{"a:b:c", ""},
		{"user@host:1", ""},
		{"ho st:1", ""},
		{"host/path:1", ""},
	}
	for _, test := range tests {
		got, err := ParseAddress(test.in)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("ParseAddress(%q) = %q, %v; want %q", test.in, got, err, test.want)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	for _, address := range []string{"a:1", "10.0.0.7:6550", "[::1]:65535", "[fe80::1%eth0]:6550", "0.0.0.0:1", "b4.example.com:6550"} {
		if err := CheckAddress(address); err != nil {
			t.Errorf("CheckAddress(%q) = %v, want nil", address, err)
		}
	}
	for _, address := range []string{
		"", "a", ":1", "a:", "a:0", "a:65536", "a:x", "a:-1", "::1:1", "a b:1", "a\n:1", "a/b:1", "u@a:1", "a#:1", "a?:1", strings.Repeat("a", addressBytesMax) + ":1",
	} {
		if err := CheckAddress(address); err == nil || len(err.Error()) > 2*addressBytesMax {
			t.Errorf("CheckAddress(%.20q) = %v, want a short error", address, err)
		}
	}
}

func TestHosts(t *testing.T) {
	for address, want := range map[string][2]bool{ // loopback, unspecified
		"localhost:1": {true, false}, "LOCALHOST:1": {true, false}, "127.0.0.1:6550": {true, false}, "[::1]:6550": {true, false},
		"0.0.0.0:1": {false, true}, "[::]:1": {false, true}, ":1": {false, true}, "10.0.0.7:6550": {}, "[fe80::1%eth0]:6550": {}, "a:1": {}, "": {},
	} {
		if got := [2]bool{IsLoopback(address), IsUnspecified(address)}; got != want {
			t.Errorf("%q is loopback, unspecified: %v, want %v", address, got, want)
		}
	}
}
