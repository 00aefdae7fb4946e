package layout

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of most file systems and object stores.
const (
	nameBytesMax    = 255
	pathBytesMax    = 1000
	pathFoldersMax  = 16
	nameHiddenStart = "._"
)

// CleanName returns the name of a part, relative to the output folder, without "./" before it. It refuses a name that leads out of that folder,
// that listings of inputs skip, or that a store or JSON may not hold.
func CleanName(name string) (string, error) {
	for strings.HasPrefix(name, "./") {
		name = name[len("./"):]
	}
	switch {
	case name == "":
		return "", errors.New("it is empty")
	case strings.HasPrefix(name, "/"):
		return "", errors.New("it is an absolute path, which leads out of the output: {/} is the base name of a path")
	case len(name) > pathBytesMax:
		return "", fmt.Errorf("it has more than %d bytes", pathBytesMax)
	case strings.Count(name, "/") > pathFoldersMax:
		return "", fmt.Errorf("it has more than %d folders", pathFoldersMax)
	case !utf8.ValidString(name) || strings.IndexFunc(name, unprintable) >= 0:
		return "", errors.New("it has characters that cannot be printed, or is not UTF-8")
	}
	for element := range strings.SplitSeq(name, "/") {
		switch {
		case element == "":
			return "", errors.New("a folder or a file in it has no name")
		case element == "..":
			return "", errors.New("it has .., which leads out of the output")
		case strings.ContainsRune(nameHiddenStart, rune(element[0])):
			return "", fmt.Errorf("%q begins with %q: such files are hidden, or the engine's own", element, element[:1])
		case len(element) > nameBytesMax:
			return "", fmt.Errorf("a name in it has more than %d bytes", nameBytesMax)
		}
	}
	return name, nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// Folders appends the folders of a name below the output folder, the deepest first.
func Folders(list []string, name string) []string {
	for i := strings.LastIndexByte(name, '/'); i >= 0; i = strings.LastIndexByte(name, '/') {
		name = name[:i]
		list = append(list, name)
	}
	return list
}
