package layout

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestPart(t *testing.T) {
	for _, test := range []struct {
		index, tasks uint64
		want         string
	}{
		{0, 1, "part-00000"},
		{99_999, 100_000, "part-99999"},
		{7, 100_001, "part-000007"},
		{math.MaxUint64 - 1, math.MaxUint64, "part-18446744073709551614"},
	} {
		if got := Part(test.index, test.tasks); got != test.want || !IsPart(got) {
			t.Errorf("Part(%d, %d) = %q, want %q", test.index, test.tasks, got, test.want)
		}
	}
}

func TestPublished(t *testing.T) {
	for name, want := range map[string]bool{
		"part-00000": true, "part-1234567": true, Success: true, Partial: true, Result: true,
		"part-0000": false, "part-0000x": false, "part-": false, "part": false, Temporary: false, Mark: false, "": false,
	} {
		if got := IsPublished(name); got != want {
			t.Errorf("IsPublished(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestAttempt(t *testing.T) {
	name := Attempt("map", 7, math.MaxUint64)
	if name != "map-7-18446744073709551615" {
		t.Errorf("Attempt() = %q", name)
	}
	if lease, ok := Lease(name); !ok || lease != math.MaxUint64 {
		t.Errorf("Lease(%q) = %d, %v", name, lease, ok)
	}
	for _, name := range []string{"", Mark, ".stdout-1xyz", "map-7-"} {
		if lease, ok := Lease(name); ok {
			t.Errorf("Lease(%q) = %d, want none", name, lease)
		}
	}
}

func TestCleanName(t *testing.T) {
	long := strings.Repeat("x", 255)
	for name, want := range map[string]string{
		"a.vcf": "a.vcf", "./a": "a", "././a/b.txt": "a/b.txt", "part-00000": "part-00000", "ä b": "ä b", long: long, "a..b/c.": "a..b/c.", "a_": "a_",
		"": "", "./": "", "/etc/x": "", ".": "", "..": "", "a/../b": "", "../a": "", "a/..": "", "a/": "", "a//b": "", "a/./b": "", Success: "", "a/_x": "", Temporary + "/x": "",
		".hidden": "", "a/.b": "", long + "x": "", strings.Repeat("x/", 500) + "xx": "", strings.Repeat("x/", 17) + "x": "", "a\nb": "", "a\x00": "", "\xff": "", "a\u202eb": "",
	} {
		got, err := CleanName(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("CleanName(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestFolders(t *testing.T) {
	if got := Folders(nil, "x"); len(got) > 0 {
		t.Errorf("Folders(x) = %q", got)
	}
	if got := Folders(nil, "a/b/c"); !slices.Equal(got, []string{"a/b", "a"}) {
		t.Errorf("Folders(a/b/c) = %q", got)
	}
}
