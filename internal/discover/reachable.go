package discover

import (
	"net"
	"os"
	"strconv"
)

// Reachable is the address of a listener for other machines: if it listens on all addresses, the host is this machine's name.
func Reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	name, err := os.Hostname()
	if err != nil {
		return addr.String()
	}
	return net.JoinHostPort(name, strconv.Itoa(tcp.Port))
}
