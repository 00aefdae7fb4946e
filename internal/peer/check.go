package peer

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// Versions of the messages. A program speaks Protocol and can do with ProtocolMin: that of the previous minor release, so
// that leaders are upgraded one by one.
const (
	Protocol    = 1
	ProtocolMin = 1
)

// door is what this node checks others against.
type door struct {
	book    *book
	self    replica.Member
	name    string // of the cluster
	version string
	applied uint64 // index
}

func (d door) cluster() string {
	if d.name == "" {
		return d.book.members.Cluster
	}
	return fmt.Sprintf("%q (%s)", d.name, d.book.members.Cluster)
}

func (d door) me() string { return who(d.self.ID, d.self.Address) }

func who(id uint64, address string) string {
	if address == "" {
		return fmt.Sprintf("leader %d", id)
	}
	return fmt.Sprintf("leader %d at %s", id, address)
}

func refuse(kind peerpb.Refusal_Kind, final bool, format string, args ...any) *peerpb.Refusal {
	return &peerpb.Refusal{Kind: kind, Final: final, Reason: fmt.Sprintf(format, args...)}
}

const unreachable = "a leader cannot be reached at %q (%v): set --advertise to host:port as the other leaders see it"

// check says why the one that shakes hands is not accepted; nil: it is.
func (d door) check(hs *peerpb.Handshake) *peerpb.Refusal {
	from, address := who(hs.GetFrom(), hs.GetAddress()), checkAddress(hs.GetAddress())
	switch {
	case hs.GetFrom() == 0 || hs.GetDirectory() == "":
		return refuse(peerpb.Refusal_MALFORMED, false, "the handshake of %s names no id or no data directory", from)
	case address != nil:
		return refuse(peerpb.Refusal_MALFORMED, false, unreachable, hs.GetAddress(), address)
	case hs.GetProtocol() < ProtocolMin || Protocol < hs.GetProtocolMin():
		return d.otherProtocol(from, hs.GetVersion(), hs.GetProtocolMin(), hs.GetProtocol())
	}
	if r := d.checkCluster(from, hs.GetClusterId(), hs.GetClusterName()); r != nil {
		return r
	}
	if hs.GetTo() != d.self.ID {
		return refuse(peerpb.Refusal_OTHER_MEMBER, false, "%s looked for leader %d and found %s: one of them has moved, or was given "+
			"the address of the other", from, hs.GetTo(), d.me())
	}
	if d.book.removed(hs.GetFrom()) {
		return d.wasRemoved(hs.GetFrom())
	}
	return d.checkMember(hs)
}

// checkCluster compares the clusters of this node and of another.
func (d door) checkCluster(from, id, name string) *peerpb.Refusal {
	m := d.book.members
	if id != m.Cluster {
		if slices.Contains(m.Former, id) {
			return refuse(peerpb.Refusal_RECOVERED, true, "the cluster of %s (%s) was recovered as cluster %s, of which %s is a "+
				"member; what %[1]s holds is of before that, and would make two clusters of one: start it with an empty data "+
				"directory and --join %[5]s", from, id, d.cluster(), d.me(), d.self.Address)
		}
		return refuse(peerpb.Refusal_OTHER_CLUSTER, false, "%s belongs to cluster %q (%s), and %s to cluster %s: one of the addresses "+
			"is wrong, or a data directory is of another cluster", from, name, id, d.me(), d.cluster())
	}
	if d.name != "" && name != "" && d.name != name {
		return refuse(peerpb.Refusal_OTHER_NAME, false, "%s calls cluster %s %q, and %s calls it %q: start both with one name",
			from, id, name, d.me(), d.name)
	}
	return nil
}

// checkMember compares what somebody of this cluster says of itself with what this node knows of that member.
func (d door) checkMember(hs *peerpb.Handshake) *peerpb.Refusal {
	id := hs.GetFrom()
	if id == d.self.ID {
		return refuse(peerpb.Refusal_OTHER_DIRECTORY, false, "leader %d is the one at %s, and the one at %s says it is too: give one of "+
			"them another id", id, d.self.Address, hs.GetAddress())
	}
	if r := d.checkDirectory(id, hs.GetAddress(), hs.GetDirectory()); r != nil {
		return r
	}
	_, member := d.book.member(id)
	// A new member has yet to be told of the others. And one that was away may find the others replaced: whoever has more of
	// the log than this node may well be a member that it has not read of.
	if !member && len(d.book.members.List) > 0 && hs.GetCommitted() <= d.applied {
		return refuse(peerpb.Refusal_UNKNOWN, false, "cluster %s has no leader %d; it has %s: to make it one, start it with an empty data "+
			"directory and --join %s", d.cluster(), id, ids(d.book.members.List), d.self.Address)
	}
	return nil
}

// checkDirectory finds a member that comes back without its log.
func (d door) checkDirectory(id uint64, address, directory string) *peerpb.Refusal {
	was, logged := d.book.directory(id)
	if was == "" || was == directory {
		return nil
	}
	return refuse(peerpb.Refusal_OTHER_DIRECTORY, logged, "leader %d was here before with another data directory (%s; the one at %s has "+
		"%s): its log is gone, and with it what it had acknowledged; run \"bridgefour leaders remove %[1]d\", and start it with "+
		"an empty data directory and --join %[5]s", id, was, address, directory, d.self.Address)
}

func (d door) wasRemoved(id uint64) *peerpb.Refusal {
	return refuse(peerpb.Refusal_REMOVED, true, "leader %d was removed from cluster %s, and an id is not used twice: to bring the node back, "+
		"start it with an empty data directory and --join %s", id, d.cluster(), d.self.Address)
}

func (d door) otherProtocol(from, version string, least, most uint32) *peerpb.Refusal {
	return refuse(peerpb.Refusal_OTHER_PROTOCOL, false, "%s (program %s) speaks versions %d to %d of the leaders' messages, and %s (program %s) "+
		"%d to %d: upgrade by one minor release at a time", from, version, least, most, d.me(), d.version, ProtocolMin, Protocol)
}

// checkApplicant says why the one that asks for a place is not of a kind to be given one; nil: it may be.
func (d door) checkApplicant(req *peerpb.JoinRequest) *peerpb.Refusal {
	from, address := "the node at "+req.GetAddress(), checkAddress(req.GetAddress())
	switch {
	case req.GetDirectory() == "":
		return refuse(peerpb.Refusal_MALFORMED, true, "%s names no data directory", from)
	case address != nil:
		return refuse(peerpb.Refusal_MALFORMED, true, unreachable, req.GetAddress(), address)
	case req.GetProtocol() < ProtocolMin || Protocol < req.GetProtocolMin():
		return d.otherProtocol(from, req.GetVersion(), req.GetProtocolMin(), req.GetProtocol())
	case req.GetClusterId() != "" && req.GetClusterId() != d.book.members.Cluster:
		return refuse(peerpb.Refusal_OTHER_CLUSTER, true, "%s wants to join cluster %s, and %s belongs to %s: name a leader of the other one, "+
			"or leave the cluster id out", from, req.GetClusterId(), d.me(), d.cluster())
	case req.GetClusterName() != "" && d.name != "" && req.GetClusterName() != d.name:
		return refuse(peerpb.Refusal_OTHER_NAME, true, "%s wants to join a cluster named %q, and %s belongs to %s: name a leader of the other "+
			"one, or this cluster's name", from, req.GetClusterName(), d.me(), d.cluster())
	}
	return nil
}

// checkPlace says why there is no place for the one that asks, whatever is tried later; nil: there may be. Only who leads knows.
func (d door) checkPlace(req *peerpb.JoinRequest) *peerpb.Refusal {
	id := req.GetId()
	if id != 0 && d.book.removed(id) {
		return refuse(peerpb.Refusal_REMOVED, true, "leader %d was removed from cluster %s, and an id is not used twice: leave the id out, "+
			"and a new one is given", id, d.cluster())
	}
	for _, other := range d.book.members.List {
		same := req.GetDirectory() == other.Directory
		switch {
		case same && id != 0 && id != other.ID:
			return refuse(peerpb.Refusal_OTHER_MEMBER, true, "the data directory of the node at %s is that of leader %d, not %d: leave the id "+
				"out", req.GetAddress(), other.ID, id)
		case !same && id == other.ID:
			return refuse(peerpb.Refusal_OTHER_DIRECTORY, true, "cluster %s has a leader %d already, at %s and with another data directory: "+
				"leave the id out, and a new one is given; if this is to replace it, run \"bridgefour leaders remove %[2]d\" as well",
				d.cluster(), other.ID, other.Address)
		case !same && req.GetAddress() == other.Address:
			return refuse(peerpb.Refusal_OTHER_DIRECTORY, true, "leader %d of cluster %s has the address %s already: if it is gone for good, "+
				"run \"bridgefour leaders remove %[1]d\" first", other.ID, d.cluster(), other.Address)
		}
	}
	return nil
}

// checkAddress says why others cannot dial address.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q is no port", port)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return fmt.Errorf("%q is no host that others can reach", host)
	}
	return nil
}

func ids(list []replica.Member) string {
	all := make([]string, len(list))
	for i, m := range list {
		all[i] = strconv.FormatUint(m.ID, 10)
	}
	return strings.Join(all, ", ")
}
