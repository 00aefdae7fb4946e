package cli

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// listenDefault is the default address of a leader.
const listenDefault = "127.0.0.1:" + transport.DefaultPort

func addLogLevel(cmd *cobra.Command, to *string, def string) {
	cmd.Flags().StringVar(to, "log-level", def, "debug, info, warn or error")
	completeFlag(cmd, "log-level", offer(logLevels()...))
}

func logLevels() []string { return []string{"debug", "info", "warn", "error"} }

// logger logs to stderr.
func (a *app) logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef(nil, "--log-level %q: want %s%s", level, strings.Join(logLevels(), ", "), didYouMean(level, logLevels()))
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: l})), nil
}

// fromContainer sets an unset flag from an environment variable of the original system's containers.
func (a *app) fromContainer(cmd *cobra.Command, flag, value string) error {
	if value == "" || cmd.Flags().Changed(flag) {
		return nil
	}
	return cmd.Flags().Set(flag, value)
}

// hostPort joins two environment variables of the original system's containers; empty if neither is set.
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

// checkOpen refuses to listen beyond loopback without security. ways are the ways to have some.
func checkOpen(cmd *cobra.Command, listen string, insecure bool, ways string) error {
	if insecure || transport.IsLoopback(listen) {
		return nil
	}
	return usagef(cmd, "--listen %s: other machines could reach this port, and any client that does could run programs as you: listen on 127.0.0.1, %s"+
		"or add --insecure (BRIDGEFOUR_INSECURE=1) if only machines that you trust can reach it", listen, ways)
}

// warnInsecure says at start what --insecure means.
func warnInsecure(logger *slog.Logger, listen string, insecure bool) {
	if insecure {
		logger.Warn("started with --insecure", "listen", listen, "meaning", access.InsecureWarning)
	}
}

func addInsecure(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "insecure", false, "serve every client that reaches the port, and connect to leaders, without encryption: for networks of trusted machines only")
}

// serverDir is the data directory of a server: given, or the default.
func (a *app) serverDir(given, name string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	state, err := a.stateDir()
	if err != nil {
		return "", fmt.Errorf("%w; set --data-dir", err)
	}
	return filepath.Join(state, name), nil
}

// writeAddress writes the address of a server, with the chosen port, to a file that scripts can wait for.
func writeAddress(file, address string) error {
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

// niceServer is the default of --nice for servers: what they do for all must not wait for tasks that fill every core. A run is alone with its
// tasks, and competes with the rest of the machine as xargs does.
const niceServer = 5

func addNice(cmd *cobra.Command, to *int, def int) {
	*to = def
	const most = 19
	cmd.Flags().Func("nice", fmt.Sprintf("lower the CPU priority of tasks' commands by `N`, 0 to %d (default %d)", most, def), func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > most {
			return fmt.Errorf("want a number from 0 to %d", most)
		}
		*to = n
		return nil
	})
}

func addAllowedHost(cmd *cobra.Command, to *[]string) {
	cmd.Flags().Func("allowed-host", "a further host `name` that clients may use in URLs, as of a proxy; repeatable", func(name string) error {
		*to = append(*to, name)
		return access.CheckHost(name)
	})
}

func addAddressFile(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "address-file", "", "write the listen address to `file` once the server listens")
}
