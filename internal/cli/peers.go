package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// parsePeers parses --peers, a list of ID=host:port.
func parsePeers(text string) ([]replica.Member, error) {
	var peers []replica.Member
	for item := range strings.SplitSeq(text, ",") {
		number, address, ok := strings.Cut(strings.TrimSpace(item), "=")
		id, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || id == 0 {
			return nil, fmt.Errorf("invalid peer %q: want ID=host:port, with an ID of 1 or more", item)
		}
		if address, err = transport.ParseAddress(address); err != nil {
			return nil, err
		}
		peers = append(peers, replica.Member{ID: id, Address: address, Voter: true})
	}
	slices.SortFunc(peers, func(a, b replica.Member) int { return int(a.ID) - int(b.ID) }) //nolint:gosec // small numbers
	for i := range peers {
		for _, other := range peers[:i] {
			if other.ID == peers[i].ID || other.Address == peers[i].Address {
				return nil, fmt.Errorf("leaders %d=%s and %d=%s share an ID or an address", other.ID, other.Address, peers[i].ID, peers[i].Address)
			}
		}
	}
	return peers, nil
}

// peersClusterID derives the ID of a cluster from its initial leaders, so that each of them computes the same one. In the original
// system's containers each leader sees other host names, so only numbers and ports are used there.
func peersClusterID(name string, peers []replica.Member, portsOnly bool) string {
	parts := make([]string, len(peers))
	for i, p := range peers {
		address := p.Address
		if portsOnly {
			address = address[strings.LastIndexByte(address, ':'):]
		}
		parts[i] = fmt.Sprintf("%d=%s", p.ID, address)
	}
	sum := sha256.Sum256([]byte(name + "\n" + strings.Join(parts, "\n")))
	return name + "-" + hex.EncodeToString(sum[:4])
}
