package wire

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// addressMax bounds the bytes of an address: a DNS name has up to 253.
const addressMax = 260

// CheckAddress reports an address that cannot be dialed: addresses come from users and from other machines.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	odd := strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f })
	if err != nil || portErr != nil || n == 0 || host == "" || len(address) > addressMax || odd {
		return fmt.Errorf("invalid address %.*q: want host:port", addressMax, address)
	}
	return nil
}
