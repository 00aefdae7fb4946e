package httpapi

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// Server returns an http.Server with limits for slow and idle clients. Waiting requests (long polls, followed logs) end with ctx, so
// that Shutdown need not wait for them.
func Server(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    transport.HeaderBytesMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       access.ConnContext,
	}
}

// contentSecurity is the policy of every answer: browsers load and send nothing for it, and show it in no frame.
const contentSecurity = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// protective are the headers, in canonical form, by which browsers keep answers from other sites.
//
//nolint:gochecknoglobals // never written; saves allocations per answer
var protective = []struct {
	name  string
	value []string
}{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"Content-Security-Policy", []string{contentSecurity}},
	{"Cross-Origin-Resource-Policy", []string{"same-origin"}},
	{"Referrer-Policy", []string{"no-referrer"}},
}

func protect(h http.Header) {
	for _, p := range protective {
		h[p.name] = p.value
	}
}
