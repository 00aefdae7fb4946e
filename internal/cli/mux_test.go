package cli

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// TestSplitter holds that each connection reaches the server that its first bytes ask for, with all of its bytes.
func TestSplitter(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplitter(l)
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := s.run(); err != nil {
			t.Errorf("run = %v, want nil", err)
		}
	})
	// Each server answers with its name and the line it was sent.
	serve := func(name string, b *branch) {
		for {
			c, err := b.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept = %v, want net.ErrClosed", err)
				}
				return
			}
			line, err := bufio.NewReader(c).ReadString('\n')
			if err == nil {
				_, err = io.WriteString(c, name+" "+line)
			}
			if err := errors.Join(err, c.Close()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	parts.Go(func() { serve("grpc", s.grpc) })
	parts.Go(func() { serve("http", s.http) })

	var d net.Dialer
	dial := func() net.Conn {
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	silent := dial() // says nothing; it must hold up nobody, and not the end either
	for _, c := range []struct{ first, rest, want string }{
		{"GET / HTTP/1.1", "\n", "http GET / HTTP/1.1\n"},
		{"PRI * HTTP/2.0", "\n", "grpc PRI * HTTP/2.0\n"},
		{"PR", "I * HTTP/2.0\n", "grpc PRI * HTTP/2.0\n"},
		{"P", "UT / HTTP/1.1\n", "http PUT / HTTP/1.1\n"},
	} {
		conn := dial()
		for _, text := range []string{c.first, c.rest} {
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
		}
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != c.want {
			t.Errorf("sent %q %q: got %q, %v, want %q", c.first, c.rest, got, err, c.want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.http.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := s.grpc.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	parts.Wait()
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection got an answer, want its end")
	}
}
