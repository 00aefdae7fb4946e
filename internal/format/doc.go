// Package format recognizes the formats of files by their first bytes, and decompresses. The name of a file says nothing: a .gz may be
// text, and text may be compressed under any name.
package format
