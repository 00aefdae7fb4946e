package cli

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bridgefour/bridgefour/internal/state"
)

// gpu is the resource whose ids attempts get in CUDA_VISIBLE_DEVICES, too.
const gpu = "gpu"

func addResources(fs *pflag.FlagSet, name string, resources *[]string) {
	fs.StringArrayVar(resources, name, nil, "countable things for tasks that need them, by their ids, `NAME=ID,ID…`, such as gpu=0,1,2,3, or their number: license=5 is "+
		"license=0,1,2,3,4, gpu=2 is gpu=0,1, and with a comma, gpu=2, is the one with id 2; gpu=none: no NVIDIA devices, which are otherwise found in /dev; repeatable")
}

// workerResources parses the resources of the workers of this process.
func workerResources(cmd *cobra.Command, flag string, given []string) (map[string][]string, error) {
	resources, err := parseResources(given)
	if err != nil {
		return nil, usagef(cmd, "--%s: %v", flag, err)
	}
	return resources, nil
}

// parseResources parses resources of workers, each as NAME=ID,ID…, NAME=N for the ids 0 to N-1, or NAME=none.
func parseResources(list []string) (map[string][]string, error) {
	resources := map[string][]string{}
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if !ok || value == "" {
			return nil, fmt.Errorf("%q: want NAME=ID,ID…, NAME=N or NAME=none", text)
		}
		if err := state.CheckResourceName(name); err != nil {
			return nil, err
		}
		if _, twice := resources[name]; twice {
			return nil, fmt.Errorf("%s is given twice: name all of its ids at once", name)
		}
		ids, err := resourceIDs(value)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		resources[name] = ids
	}
	if len(resources) > state.ResourcesMax {
		return nil, fmt.Errorf("%d kinds: want at most %d", len(resources), state.ResourcesMax)
	}
	return resources, nil
}

func resourceIDs(value string) ([]string, error) {
	if value == "none" {
		return nil, nil
	}
	if n, err := strconv.ParseUint(value, 10, 64); err == nil {
		if n > state.ResourceMax {
			return nil, fmt.Errorf("want at most %d", state.ResourceMax)
		}
		ids := make([]string, n)
		for i := range ids {
			ids[i] = strconv.Itoa(i)
		}
		return ids, nil
	}
	ids := strings.Split(strings.TrimSuffix(value, ","), ",")
	if len(ids) > state.ResourceMax {
		return nil, fmt.Errorf("want at most %d", state.ResourceMax)
	}
	for _, id := range ids {
		switch {
		case id == "" || strings.ContainsAny(id, " \t\n\x00"):
			return nil, errors.New("an id is empty, or has blanks")
		case numbersForm.MatchString(id) && strings.Contains(id, "-"):
			return nil, fmt.Errorf("%s is neither a number of things nor an id: name each id, as 0,1,2,3", id)
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(ids)))) < len(ids) {
		return nil, errors.New("an id is given twice")
	}
	return ids, nil
}

// resourcesText lists resources with their first ids.
func resourcesText(resources map[string][]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		ids := resources[name]
		text := name + "=" + strings.Join(ids[:min(len(ids), namedMax)], ",")
		switch {
		case len(ids) == 0:
			text += "none"
		case len(ids) > namedMax:
			text += fmt.Sprintf(",… (%d)", len(ids))
		}
		list = append(list, text)
	}
	return orDash(strings.Join(list, " "))
}

// devFolder has the devices of a machine.
const devFolder = "/dev"

// addDevices adds the NVIDIA devices in a folder, unless the resource gpu is given. It leaves out those that another process of this machine has
// added: two workers must not give one device to two attempts.
func (a *app) addDevices(resources map[string][]string, dev string) {
	if _, given := resources[gpu]; given {
		return
	}
	files, _ := filepath.Glob(filepath.Join(dev, "nvidia[0-9]*")) // the pattern is valid
	var numbers []int
	for _, file := range files {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(file), "nvidia"))
		if err == nil && a.claim(file) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		resources[gpu] = append(resources[gpu], strconv.Itoa(n))
	}
}

// claim reports whether no other process has claimed a device. The claim is an address without a file, which the kernel keeps until this process
// ends.
func (a *app) claim(device string) bool {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@bridgefour" + device, Net: "unixgram"})
	if err != nil {
		return false
	}
	a.claims = append(a.claims, c)
	return true
}
