package cli

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// listenDefault is where a leader listens.
const listenDefault = "127.0.0.1:" + portDefault

func addLogLevel(cmd *cobra.Command, to *string, def string) {
	cmd.Flags().StringVar(to, "log-level", def, "debug, info, warn or error")
}

// logger logs to stderr.
func (a *app) logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		levels := []string{"debug", "info", "warn", "error"}
		return nil, usagef(nil, "--log-level %q: expected %s%s", level, strings.Join(levels, ", "), didYouMean(level, levels))
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: l})), nil
}

// fromContainer gives a flag that was set nowhere a value from a variable of the original system's containers.
func (a *app) fromContainer(cmd *cobra.Command, flag, value string) error {
	if value == "" || cmd.Flags().Changed(flag) {
		return nil
	}
	return cmd.Flags().Set(flag, value)
}

// hostPort joins two variables of the original system's containers; empty if neither is set.
func (a *app) hostPort(hostVar, portVar, hostElse, portElse string) string {
	host, hasHost := a.env(hostVar)
	port, hasPort := a.env(portVar)
	if !hasHost && !hasPort {
		return ""
	}
	if host == "" {
		host = hostElse
	}
	if port == "" {
		port = portElse
	}
	return net.JoinHostPort(host, port)
}

// warnOpen says what it means to listen for everybody.
func warnOpen(logger *slog.Logger, listen string) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return // listening will say it better
	}
	if ip := net.ParseIP(host); host == "localhost" || (ip != nil && ip.IsLoopback()) {
		return
	}
	logger.Warn("whoever reaches this port can run programs on the workers of this cluster: keep it inside a network you trust",
		"listen", listen)
}

// loopback is how this machine reaches a port that it listens on.
func loopback(addr *net.TCPAddr) string {
	if addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", addr.Port)
	}
	return addr.String()
}

// serverDir is the data directory of a server: the one given, or the default.
func (a *app) serverDir(given, name string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	state, err := a.stateDir()
	if err != nil {
		return "", fmt.Errorf("%w; name a folder with --data-dir", err)
	}
	return filepath.Join(state, name), nil
}

// tellAddress writes the address of a server, with the port that the system has chosen, for scripts to wait for.
func tellAddress(file, address string) error {
	if file == "" {
		return nil
	}
	temporary := file + ".tmp"
	if err := os.WriteFile(temporary, []byte(address+"\n"), 0o644); err != nil { //nolint:gosec // an address is no secret
		return fmt.Errorf("address file: %w", err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return fmt.Errorf("address file: %w", err)
	}
	return nil
}

func addAcceptHost(cmd *cobra.Command, to *[]string) {
	cmd.Flags().StringArrayVar(to, "accept-host", nil, "a further host `name` that clients may use in URLs, as of a proxy; repeatable")
}

func addAddressFile(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "address-file", "", "write the address that it listens on to `file`, once it does")
}
