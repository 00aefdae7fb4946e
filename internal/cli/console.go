package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// console is the diagnostic output (stderr). On a terminal it keeps a status line below what is printed.
type console struct {
	file     *os.File
	terminal bool

	mu     sync.Mutex
	status string
	open   bool // the cursor is behind an unterminated line of standard output
}

func newConsole(f *os.File) *console {
	return &console{file: f, terminal: term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"}
}

// Beside returns a writer to f, which is standard output. If both are terminals, the status stays below what is written there.
func (c *console) Beside(f *os.File) io.Writer {
	if c.terminal && term.IsTerminal(int(f.Fd())) {
		return &besideConsole{c, f}
	}
	return f
}

type besideConsole struct {
	console *console
	file    *os.File
}

func (b *besideConsole) Write(text []byte) (int, error) {
	c := b.console
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != "" && !c.open {
		_, _ = c.file.WriteString(clearLine)
	}
	n, err := b.file.Write(text)
	c.open = n > 0 && text[n-1] != '\n'
	if c.status != "" && !c.open {
		_, _ = c.file.WriteString(c.fitted())
	}
	return n, err
}

// Printf prints a line above the status.
func (c *console) Printf(format string, args ...any) {
	fmt.Fprintf(c, format+"\n", args...) //nolint:errcheck // there is no other output
}

// Write prints whole lines above the status.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == "" && !c.open {
		return c.file.Write(b)
	}
	var out bytes.Buffer
	if c.open {
		out.WriteByte('\n')
	} else {
		out.WriteString(clearLine)
	}
	c.open = false
	out.Write(b)
	out.WriteString(c.fitted())
	if _, err := c.file.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Status replaces the status line; an empty string removes it. Only terminals show it. The cursor stays visible and the line is not
// terminated, so that a killed process leaves the terminal usable.
func (c *console) Status(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.terminal || (line == "" && c.status == "") {
		return
	}
	c.status = line
	if c.open {
		return
	}
	_, _ = c.file.WriteString(clearLine + c.fitted())
}

const clearLine = "\r\x1b[K"

// fitted is the status cut to the terminal's width: a wrapped line could not be erased.
func (c *console) fitted() string {
	width, _, err := term.GetSize(int(c.file.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	if utf8.RuneCountInString(c.status) < width {
		return c.status
	}
	return string([]rune(c.status)[:max(width-2, 0)]) + "…"
}

// printable makes text safe for a terminal: control characters and invalid UTF-8 are escaped.
func printable(s string) string {
	clean := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }) < 0
	if clean {
		return s
	}
	quoted := fmt.Sprintf("%q", s)
	return quoted[1 : len(quoted)-1]
}
