package state

import (
	"cmp"
	"fmt"
	"slices"
)

// Resource is a number of countable things of one kind, such as gpu: of a worker, or that an attempt needs for itself.
type Resource struct {
	Name string
	N    uint64
}

// Memory is the name of the memory of a worker, in bytes, among its resources. The log has it in a field of its own.
const Memory = "memory"

// Bounds of the resources of a worker or job.
const (
	ResourcesMax     = 32
	ResourceMax      = 1 << 20 // of one kind
	resourceBytesMax = 32      // of a name
)

// CheckResourceName returns why a name of a resource is invalid. It becomes part of the name of a variable.
func CheckResourceName(name string) error {
	switch {
	case name == Memory || name == "slots":
		return fmt.Errorf("%s is no resource of this kind: use --memory or --slots-per-task", name)
	case name == "" || len(name) > resourceBytesMax || name[0] < 'a' || name[0] > 'z':
	case !slices.ContainsFunc([]byte(name), func(c byte) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' }):
		return nil
	}
	return fmt.Errorf("invalid name of a resource %.*q: want up to %d of the characters a-z, 0-9 and _, the first one a letter", 2*resourceBytesMax, name, resourceBytesMax)
}

// Resources returns resources by name; of those that are 0 there are none.
func Resources[N ~int | ~uint32](numbers map[string]N) []Resource {
	var list []Resource
	for name, n := range numbers {
		if n > 0 {
			list = append(list, Resource{name, uint64(n)})
		}
	}
	slices.SortFunc(list, func(a, b Resource) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
