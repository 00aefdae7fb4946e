package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseResources(t *testing.T) {
	for _, c := range []struct {
		given, want string // an error that has it, if it begins with !
	}{
		{"", "map[]"},
		{"gpu=0,1,3", "map[gpu:[0 1 3]]"},
		{"gpu=2", "map[gpu:[0 1]]"},
		{"gpu=3,", "map[gpu:[3]]"},
		{"gpu=GPU-8f,GPU-91 license=3", "map[gpu:[GPU-8f GPU-91] license:[0 1 2]]"},
		{"gpu=none", "map[gpu:[]]"},
		{"license=0", "map[license:[]]"},
		{"gpu", "!want NAME=ID"},
		{"gpu=", "!want NAME=ID"},
		{"gpu=0,0", "!twice"},
		{"gpu=0 gpu=1", "!gpu is given twice"},
		{"gpu=0,,1", "!empty"},
		{"gpu=-1", "!-1 is neither a number of things nor an id"},
		{"gpu=0-3", "!0-3 is neither a number of things nor an id: name each id"},
		{"gpu=MIG-1-2", "map[gpu:[MIG-1-2]]"},
		{"GPU=1", "!invalid name"},
		{"memory=1", "!use --memory"},
		{"license=9999999999", "!at most 1048576"},
	} {
		got, err := parseResources(strings.Fields(c.given))
		if text, fails := strings.CutPrefix(c.want, "!"); fails {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("parseResources(%q) = %v, %v, want an error with %q", c.given, got, err, text)
			}
		} else if fmt.Sprint(got) != c.want || err != nil {
			t.Errorf("parseResources(%q) = %v, %v, want %v", c.given, got, err, c.want)
		}
	}
}

func TestResourcesText(t *testing.T) {
	for given, want := range map[string]string{
		"": "-", "gpu=2": "gpu=0,1", "gpu=2, license=none": "gpu=2 license=none", "license=12": "license=0,1,2,3,4,5,6,7,8,9,… (12)",
	} {
		if has, err := parseResources(strings.Fields(given)); err != nil || resourcesText(has) != want {
			t.Errorf("resourcesText(%s) = %q, %v, want %q", given, resourcesText(has), err, want)
		}
	}
}

func TestAddDevices(t *testing.T) {
	dev, a := t.TempDir(), &app{}
	for _, name := range []string{"nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia3x"} {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ given, want string }{
		{"gpu=none", "map[gpu:[]]"},
		{"license=1", "map[gpu:[2 10] license:[0]]"},
		{"license=2", "map[license:[0 1]]"}, // the devices are claimed
	} {
		got, err := parseResources([]string{c.given})
		if a.addDevices(got, dev); fmt.Sprint(got) != c.want || err != nil {
			t.Errorf("%s and the devices: %v, %v, want %v", c.given, got, err, c.want)
		}
	}
	if len(a.claims) != 2 {
		t.Errorf("%d claims, want 2", len(a.claims))
	}
}
