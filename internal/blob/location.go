package blob

import (
	"fmt"
	"path"
	"strings"
)

// Location names a file or a folder: an absolute path in the file system, or a URL of another store, such as
// s3://bucket/folder. It may contain any bytes. It is clean: no empty parts, "." or "..", and no "/" at its end, except for the
// root folder. [ParseLocation] returns clean locations, and Join and Dir preserve that. Do not use package path, which would
// merge the slashes of a URL.
type Location string

// ParseLocation parses user input: an absolute path, file:// and an absolute path, or a URL.
func ParseLocation(text string) (Location, error) {
	if scheme, rest, ok := strings.Cut(text, "://"); ok && isScheme(scheme) {
		if scheme == "file" {
			if !path.IsAbs(rest) {
				return "", fmt.Errorf("%q names a host; want file:/// and an absolute path", text)
			}
			return Location(path.Clean(rest)), nil
		}
		host, rest, _ := strings.Cut(rest, "/")
		if host == "" {
			return "", fmt.Errorf("%q names no host or bucket; want %s://NAME/PATH", text, scheme)
		}
		return Location(scheme + "://" + host).Join(strings.TrimPrefix(path.Clean("/"+rest), "/")), nil
	}
	if !path.IsAbs(text) {
		return "", fmt.Errorf("%q is not an absolute path", text)
	}
	return Location(path.Clean(text)), nil
}

// isScheme reports whether s is a scheme by RFC 3986; what precedes "://" in the path "/a://b" is not.
func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(c))) {
			return false
		}
	}
	return s != ""
}

// scheme is the URL scheme; empty for paths.
func (l Location) scheme() string {
	if strings.HasPrefix(string(l), "/") {
		return ""
	}
	scheme, _, _ := strings.Cut(string(l), "://")
	return scheme
}

// Join returns the location name below l. name may have several parts, or be empty.
func (l Location) Join(name string) Location {
	switch {
	case name == "":
		return l
	case strings.HasSuffix(string(l), "/"):
		return l + Location(name)
	}
	return l + "/" + Location(name)
}

// Dir returns the parent folder of l. That of a root is the root itself.
func (l Location) Dir() Location {
	root := l.root()
	if end := strings.LastIndexByte(string(l), '/'); end >= len(root) {
		return l[:end]
	}
	return root
}

// IsRoot reports whether l is the root folder, or the host or bucket of a URL.
func (l Location) IsRoot() bool { return l == l.root() }

func (l Location) root() Location {
	scheme := l.scheme()
	if scheme == "" {
		return "/"
	}
	from := len(scheme) + len("://")
	if host := strings.IndexByte(string(l[from:]), '/'); host >= 0 {
		return l[:from+host]
	}
	return l
}

// Base returns the last part of l.
func (l Location) Base() string { return string(l[strings.LastIndexByte(string(l), '/')+1:]) }

// Below reports whether l is dir or below it, and returns the relative path.
func (l Location) Below(dir Location) (rest string, ok bool) {
	if l == dir {
		return "", true
	}
	return strings.CutPrefix(string(l), strings.TrimSuffix(string(dir), "/")+"/")
}
