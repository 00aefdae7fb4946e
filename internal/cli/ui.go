package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/transport"
)

func (a *app) uiCommand() *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use: "ui", Short: "Open the cluster's web page", Args: noArgs,
		Long: `Print a URL that lets a browser in, once and within a minute, and open it if there is a display (Linux). The browser then is what
this command is to the cluster, for 12 hours or until the leader is restarted.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect(cluster, 0)
			if err != nil {
				return err
			}
			login, err := c.BrowserLogin(cmd.Context())
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			if _, err := fmt.Fprintln(a.stdout, login.URL); err != nil {
				return err
			}
			if opener := a.browserOpener(); opener != "" && term.IsTerminal(int(os.Stdout.Fd())) {
				if err := openURL(cmd.Context(), opener, login.URL); err != nil && cmd.Context().Err() == nil {
					a.stderr.Printf("%s: %v; open the URL yourself", opener, err)
				}
			}
			return context.Cause(cmd.Context())
		},
	}
	addCluster(cmd, &cluster)
	return cmd
}

// openURL has the opener show a URL that is a secret. All users can read the arguments of processes, so the opener gets the address of a
// listener, which leads the first browser of this user on to the URL.
func openURL(ctx context.Context, opener, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("no browser has come")) // the URL works for as long
	defer cancel()
	l, err := transport.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	opened := make(chan struct{})
	var once sync.Once
	server := httpapi.Server(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mode := r.Header.Get("Sec-Fetch-Mode") // other requests than for a page may be made by those of other sites
		if !access.PeerFrom(r.Context()).Local || r.URL.Path != "/" || mode != "" && mode != "navigate" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Location", url)
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusSeeOther)
		_ = http.NewResponseController(w).Flush() // the answer is complete then
		once.Do(func() { close(opened) })
	}), slog.New(slog.DiscardHandler))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	defer serving.Wait()
	defer server.Close() //nolint:errcheck // of a listener
	if err := exec.CommandContext(ctx, opener, transport.URL(l.Addr().String())+"/").Run(); err != nil {
		return err
	}
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// browserOpener is the command that opens a URL in the user's browser; empty: there is no display, or the system does not tell whose the
// browser is.
func (a *app) browserOpener() string {
	for _, display := range []string{"DISPLAY", "WAYLAND_DISPLAY"} {
		if v, ok := a.env(display); ok && v != "" && runtime.GOOS == "linux" {
			return "xdg-open"
		}
	}
	return ""
}
