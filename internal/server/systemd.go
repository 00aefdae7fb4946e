package server

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/bridgefour/bridgefour/internal/transport"
)

// NotifySystemd tells systemd, if this process is a service of it with Type=notify, that the server that listens at addr is ready, and once ctx is done that it stops.
// With WatchdogSec it also says, until stop is called, that the server answers its health check: one that does not is restarted.
func NotifySystemd(ctx context.Context, addr net.Addr, logger *slog.Logger) (stop func()) {
	notify := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			logger.WarnContext(ctx, "systemd not notified", "state", state, "error", err)
		}
	}
	address := transport.Loopback(addr)
	notify(daemon.SdNotifyReady)
	stopping := context.AfterFunc(ctx, func() { notify(daemon.SdNotifyStopping) })
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	if interval, err := daemon.SdWatchdogEnabled(false); err != nil {
		logger.WarnContext(ctx, "no watchdog", "error", err)
	} else if interval > 0 {
		watch.Go(func() {
			ticker := time.NewTicker(interval / 3)
			defer ticker.Stop()
			for {
				if _, err := Health(watching, address, false); err == nil {
					notify(daemon.SdNotifyWatchdog)
				} else if watching.Err() == nil {
					logger.WarnContext(ctx, "the health check fails", "error", err)
				}
				select {
				case <-watching.Done():
					return
				case <-ticker.C:
				}
			}
		})
	}
	return func() {
		stopping()
		cancel()
		watch.Wait()
	}
}
