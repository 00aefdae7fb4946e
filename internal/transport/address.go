package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultPort is the port of an address without one.
const DefaultPort = "6550"

// addressBytesMax bounds an address: a DNS name has up to 253 bytes.
const addressBytesMax = 260

// CheckAddress returns an error unless address is a valid host:port. Addresses come from users and other machines.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	odd := strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`/@?#\`, r) })
	if err != nil || portErr != nil || n == 0 || host == "" || len(address) > addressBytesMax || odd {
		return fmt.Errorf("invalid address %.*q: want host:port", addressBytesMax, address)
	}
	return nil
}

// CheckDial returns an error unless address is a valid host:port or unix:PATH.
func CheckDial(address string) error {
	if path, ok := UnixPath(address); ok && filepath.IsAbs(path) {
		return nil
	}
	return CheckAddress(address)
}

// CheckListen returns an error unless address is a valid host:port to listen on: the host may be empty, and the port 0.
func CheckListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if host == "" {
		host = "0.0.0.0"
	}
	if port == "0" {
		port = DefaultPort
	}
	if err != nil || CheckAddress(net.JoinHostPort(host, port)) != nil {
		return fmt.Errorf("invalid address %.*q: want host:port", addressBytesMax, address)
	}
	return nil
}

// ParseDial parses an address as users write it: of a unix socket, or as [ParseAddress].
func ParseDial(text string) (string, error) {
	path, ok := UnixPath(strings.TrimSpace(text))
	if !ok {
		return ParseAddress(text)
	}
	if path == "" {
		return "", fmt.Errorf("invalid address %q: want unix:PATH", text)
	}
	path, err := filepath.Abs(path)
	return UnixAddress(path), err
}

// ParseDialList parses addresses as of [ParseDial], separated by commas.
func ParseDialList(text string) ([]string, error) {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		address, err := ParseDial(item)
		if err != nil {
			return nil, err
		}
		list = append(list, address)
	}
	return list, nil
}

// ParseAddress parses an address as users write it: a URL, or an address without a port.
func ParseAddress(text string) (string, error) {
	address := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(text), URL("")), "/")
	if address == "" {
		return "", errors.New("empty address: want host:port")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil { // no port
		host, port = strings.Trim(address, "[]"), DefaultPort
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
			return "", fmt.Errorf("invalid address %q: want host:port", text)
		}
	}
	address = net.JoinHostPort(host, port)
	if CheckAddress(address) != nil {
		return "", fmt.Errorf("invalid address %q: want host:port", text)
	}
	return address, nil
}

// IsLoopback reports whether address, host:port, is reachable from this machine only.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, _ := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || ip.Unmap().IsLoopback()
}

// Loopback is the address by which this machine reaches its own listener at addr.
func Loopback(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
	}
	return addr.String()
}

// IsUnspecified reports whether address, host:port, means all addresses of a machine, which others cannot dial.
func IsUnspecified(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, _ := netip.ParseAddr(host)
	return host == "" || ip.Unmap().IsUnspecified()
}
