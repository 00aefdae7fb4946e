package blob

import (
	"fmt"
	"path"
	"strings"
)

// Location names a file or a folder: an absolute path in the file system, or a URL of another store, as in
// s3://bucket/folder. It may hold any bytes. A location has no "//", "." or ".." to clean up and no "/" at its end, except
// for the root folder: [ParseLocation] gives such, and Join and Dir keep it so. Package path is not for locations: it would
// make one "/" of the two in a URL.
type Location string

// ParseLocation parses what a user gives: an absolute path, file:// with one, or a URL.
func ParseLocation(text string) (Location, error) {
	if scheme, rest, ok := strings.Cut(text, "://"); ok && isScheme(scheme) {
		if scheme == "file" {
			if !path.IsAbs(rest) {
				return "", fmt.Errorf("%q names a host; write file:/// and an absolute path", text)
			}
			return Location(path.Clean(rest)), nil
		}
		host, rest, _ := strings.Cut(rest, "/")
		if host == "" {
			return "", fmt.Errorf("%q names no host or bucket; write %s://NAME/PATH", text, scheme)
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

// scheme is that of a URL; "" for a path.
func (l Location) scheme() string {
	if strings.HasPrefix(string(l), "/") {
		return ""
	}
	scheme, _, _ := strings.Cut(string(l), "://")
	return scheme
}

// Join is a location below l. name may have several parts, and may be empty.
func (l Location) Join(name string) Location {
	switch {
	case name == "":
		return l
	case strings.HasSuffix(string(l), "/"):
		return l + Location(name)
	}
	return l + "/" + Location(name)
}

// Dir is the folder that l lies in. That of a root folder, or of the host or bucket of a URL, is itself.
func (l Location) Dir() Location {
	root := l.root()
	if end := strings.LastIndexByte(string(l), '/'); end >= len(root) {
		return l[:end]
	}
	return root
}

// IsRoot reports whether l is the root folder, or the host or bucket of a URL alone.
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

// Base is the last part of l.
func (l Location) Base() string { return string(l[strings.LastIndexByte(string(l), '/')+1:]) }

// Below reports whether l is dir or lies below it, and gives the way from there.
func (l Location) Below(dir Location) (rest string, ok bool) {
	if l == dir {
		return "", true
	}
	return strings.CutPrefix(string(l), strings.TrimSuffix(string(dir), "/")+"/")
}
