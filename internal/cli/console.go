package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// console is the diagnostic output (stderr). On a terminal it keeps a status line below what is printed.
type console struct {
	file     *os.File
	terminal bool
	colors   bool
	program  string     // that messages name instead of bridgefour; empty: none
	size     func() int // columns of the terminal

	mu     sync.Mutex
	status string
	drawn  bool // the status is on the screen
	open   bool // the cursor is behind an unterminated line of standard output
}

func newConsole(f *os.File) *console {
	terminal := term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	return &console{file: f, terminal: terminal, colors: terminal && os.Getenv("NO_COLOR") == "", size: func() int {
		const otherwise = 80
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 {
			return otherwise
		}
		return width
	}}
}

// Colors of SGR.
const (
	red   = 31
	green = 32
)

// Color returns a text in a color, if the console has some.
func (c *console) Color(color int, text string) string {
	if !c.colors {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", color, text)
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
	_, _ = c.file.WriteString(c.erased())
	n, err := b.file.Write(text)
	if n > 0 {
		c.open = text[n-1] != '\n'
	}
	_, _ = c.file.WriteString(c.fitted())
	return n, err
}

// Printf prints a line above the status.
func (c *console) Printf(format string, args ...any) {
	text := fmt.Sprintf(format+"\n", args...)
	if c.program != "" {
		text = renamed(c.program, text)
	}
	_, _ = io.WriteString(c, text) // there is no other output
}

// Write prints whole lines above the status.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == "" && !c.open {
		return c.file.Write(b)
	}
	out := bytes.NewBufferString(c.erased())
	if c.open {
		out.WriteByte('\n')
		c.open = false
	}
	out.Write(b)
	out.WriteString(c.fitted())
	if _, err := c.file.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Status replaces the status line; an empty string removes it. Only terminals show it. The cursor stays visible, so that a
// killed process leaves the terminal usable.
func (c *console) Status(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.terminal || (line == "" && c.status == "") {
		return
	}
	c.status = line
	_, _ = c.file.WriteString(c.erased() + c.fitted())
}

// erased is what removes the status from the screen. The cursor is at its beginning, also if a terminal that has become narrower has wrapped it.
func (c *console) erased() string {
	if !c.drawn {
		return ""
	}
	c.drawn = false
	return "\r\x1b[J"
}

// fitted is the status cut to the terminal's width, and the cursor's way back. It does not wrap, even if the terminal has just become narrower.
// It is empty while the last line of standard output is unterminated.
func (c *console) fitted() string {
	if c.open || c.status == "" {
		return ""
	}
	c.drawn = true
	return "\x1b[?7l" + runewidth.Truncate(c.status, max(c.size()-1, 0), "…") + "\x1b[?7h\r"
}

// printable makes text safe for a terminal: control characters and invalid UTF-8 are escaped.
func printable(s string) string {
	clean := strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) < 0
	if clean {
		return s
	}
	quoted := fmt.Sprintf("%q", s)
	return quoted[1 : len(quoted)-1]
}
