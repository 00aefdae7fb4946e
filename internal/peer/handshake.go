package peer

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Versions of the messages. A program speaks Protocol and accepts ProtocolMin, that of the previous minor release, so that
// leaders can be upgraded one by one.
const (
	Protocol    = 1
	ProtocolMin = 1
)

// policy is what this node checks callers and dialed members against.
type policy struct {
	members *members
	self    replica.Member
	name    string // of the cluster
	join    string // see Config.Join
	version string
	applied uint64 // index
	level   uint32 // of the cluster
	needs   string // a version of the program that reads it
}

func (p policy) cluster() string {
	if p.name == "" {
		return p.members.logged.Cluster
	}
	return fmt.Sprintf("%q (%s)", p.name, p.members.logged.Cluster)
}

// joinArg is what a new leader gives --join.
func (p policy) joinArg() string { return cmp.Or(p.join, p.self.Address) }

func (p policy) me() string { return who(p.self.ID, p.self.Address) }

func who(id uint64, address string) string {
	if address == "" {
		return fmt.Sprintf("leader %d", id)
	}
	return fmt.Sprintf("leader %d at %s", id, address)
}

func refuse(kind peerpb.Refusal_Kind, final bool, format string, args ...any) *peerpb.Refusal {
	return &peerpb.Refusal{Kind: kind, Final: final, Reason: fmt.Sprintf(format, args...)}
}

const unreachable = "other leaders cannot reach %q (%v): set --advertise to host:port as they see it"

// check returns why a handshake is refused; nil: it is accepted.
func (p policy) check(hs *peerpb.Handshake) *peerpb.Refusal {
	if err := cmp.Or(
		replica.Member{ID: hs.GetFrom(), Address: hs.GetAddress(), Directory: hs.GetDirectory()}.Check(), wire.Text("cluster_id", hs.GetClusterId()),
		wire.Text("cluster_name", hs.GetClusterName()), wire.Text("version", hs.GetVersion()), wire.Text("incarnation", hs.GetIncarnation()),
		wire.Text("directory", hs.GetDirectory()),
	); err != nil {
		return refuse(peerpb.Refusal_MALFORMED, false, "invalid handshake: %v", err)
	}
	from, address := who(hs.GetFrom(), hs.GetAddress()), checkAddress(hs.GetAddress())
	switch {
	case hs.GetDirectory() == "":
		return refuse(peerpb.Refusal_MALFORMED, false, "the handshake of %s names no data directory", from)
	case address != nil:
		return refuse(peerpb.Refusal_MALFORMED, false, unreachable, hs.GetAddress(), address)
	case hs.GetProtocol() < ProtocolMin || Protocol < hs.GetProtocolMin():
		return p.otherProtocol(from, hs.GetVersion(), hs.GetProtocolMin(), hs.GetProtocol())
	}
	if r := p.checkCluster(from, hs.GetClusterId(), hs.GetClusterName()); r != nil {
		return r
	}
	if hs.GetTo() != p.self.ID {
		return refuse(peerpb.Refusal_OTHER_MEMBER, false, "%s looked for leader %d and found %s: one of them has moved, or was given "+
			"the address of the other", from, hs.GetTo(), p.me())
	}
	if p.members.removed(hs.GetFrom()) {
		return p.wasRemoved(hs.GetFrom())
	}
	if hs.GetFeatureLevel() < p.level {
		return p.outdated(from, hs.GetVersion(), hs.GetFeatureLevel())
	}
	return p.checkMember(hs)
}

// checkCluster compares the cluster of another node with this node's.
func (p policy) checkCluster(from, id, name string) *peerpb.Refusal {
	m := p.members.logged
	if id != m.Cluster {
		if slices.Contains(m.Former, id) {
			return refuse(peerpb.Refusal_RECOVERED, true, "the cluster of %s (%s) was recovered as cluster %s, of which %s is a "+
				"member; what %[1]s holds is of before that, and would make two clusters of one: start it with an empty data "+
				"directory and --join %[5]s", from, id, p.cluster(), p.me(), p.joinArg())
		}
		return refuse(peerpb.Refusal_OTHER_CLUSTER, false, "%s belongs to cluster %q (%s), and %s to cluster %s: one of the addresses "+
			"is wrong, or a data directory is of another cluster", from, name, id, p.me(), p.cluster())
	}
	if p.name != "" && name != "" && p.name != name {
		return refuse(peerpb.Refusal_OTHER_NAME, false, "%s calls cluster %s %q, and %s calls it %q: start both with one name",
			from, id, name, p.me(), p.name)
	}
	return nil
}

// checkMember compares the handshake of a node of this cluster with what is known of that member.
func (p policy) checkMember(hs *peerpb.Handshake) *peerpb.Refusal {
	id := hs.GetFrom()
	if id == p.self.ID {
		return refuse(peerpb.Refusal_OTHER_DIRECTORY, false, "leader %d is the one at %s, and the one at %s claims the same id: give one of "+
			"them another id", id, p.self.Address, hs.GetAddress())
	}
	if r := p.checkDirectory(id, hs.GetAddress(), hs.GetDirectory()); r != nil {
		return r
	}
	_, member := p.members.member(id)
	// A new member does not know the others yet. And after an absence the others may have been replaced: a node with a longer log
	// may be a member that this node has not read of.
	if !member && len(p.members.logged.List) > 0 && hs.GetCommitted() <= p.applied {
		return refuse(peerpb.Refusal_UNKNOWN, false, "cluster %s has no leader %d; it has %s: to make it one, start it with an empty data "+
			"directory and --join %s", p.cluster(), id, ids(p.members.logged.List), p.joinArg())
	}
	if _, announced := p.members.announced[id]; !member && !announced && len(p.members.announced) >= replica.MembersMax {
		return refuse(peerpb.Refusal_UNKNOWN, false, "leader %d is not known, and neither are %d others that are connected, which is the limit", id,
			len(p.members.announced))
	}
	return nil
}

// checkDirectory detects a member that has lost its log.
func (p policy) checkDirectory(id uint64, address, directory string) *peerpb.Refusal {
	was, logged := p.members.directory(id)
	if was == "" || was == directory {
		return nil
	}
	return refuse(peerpb.Refusal_OTHER_DIRECTORY, logged, "leader %d was here before with another data directory (%s; the one at %s has "+
		"%s): its log is gone, and with it what it had acknowledged; run \"bridgefour leaders remove %[1]d\", and start it with "+
		"an empty data directory and --join %[5]s", id, was, address, directory, p.joinArg())
}

func (p policy) wasRemoved(id uint64) *peerpb.Refusal {
	return refuse(peerpb.Refusal_REMOVED, true, "leader %d was removed from cluster %s, and an id is not used twice: to bring the node back, "+
		"start it with an empty data directory and --join %s", id, p.cluster(), p.joinArg())
}

func (p policy) otherProtocol(from, version string, least, most uint32) *peerpb.Refusal {
	return refuse(peerpb.Refusal_OTHER_PROTOCOL, false, "%s (program %s) speaks versions %d to %d of the leaders' messages, and %s (program %s) "+
		"%d to %d: upgrade by one minor release at a time", from, version, least, most, p.me(), p.version, ProtocolMin, Protocol)
}

// outdated refuses a program that is older than the feature level. It is final: the level never falls.
func (p policy) outdated(from, version string, level uint32) *peerpb.Refusal {
	return refuse(peerpb.Refusal_OUTDATED, true, "%s (program %s) reads feature level %d, and cluster %s is at level %d: install bridgefour %s "+
		"or newer on it", from, version, level, p.cluster(), p.level, p.needs)
}

// checkApplicant returns why a node cannot join at all; nil: it may.
func (p policy) checkApplicant(req *peerpb.JoinRequest) *peerpb.Refusal {
	if err := cmp.Or(
		replica.Member{ID: max(1, req.GetId()), Address: req.GetAddress(), Directory: req.GetDirectory()}.Check(), wire.Text("cluster_id", req.GetClusterId()),
		wire.Text("cluster_name", req.GetClusterName()), wire.Text("version", req.GetVersion()), wire.Text("directory", req.GetDirectory()),
	); err != nil {
		return refuse(peerpb.Refusal_MALFORMED, true, "invalid request to join: %v", err)
	}
	from, address := "the node at "+req.GetAddress(), checkAddress(req.GetAddress())
	switch {
	case req.GetDirectory() == "":
		return refuse(peerpb.Refusal_MALFORMED, true, "%s names no data directory", from)
	case address != nil:
		return refuse(peerpb.Refusal_MALFORMED, true, unreachable, req.GetAddress(), address)
	case req.GetProtocol() < ProtocolMin || Protocol < req.GetProtocolMin():
		return p.otherProtocol(from, req.GetVersion(), req.GetProtocolMin(), req.GetProtocol())
	case req.GetClusterId() != "" && req.GetClusterId() != p.members.logged.Cluster:
		return refuse(peerpb.Refusal_OTHER_CLUSTER, true, "%s is to join cluster %s, and %s belongs to %s: name a leader of the other one, "+
			"or leave the cluster id out", from, req.GetClusterId(), p.me(), p.cluster())
	case req.GetFeatureLevel() < p.level:
		return p.outdated(from, req.GetVersion(), req.GetFeatureLevel())
	case req.GetClusterName() != "" && p.name != "" && req.GetClusterName() != p.name:
		return refuse(peerpb.Refusal_OTHER_NAME, true, "%s is to join a cluster named %q, and %s belongs to %s: name a leader of the other "+
			"one, or this cluster's name", from, req.GetClusterName(), p.me(), p.cluster())
	}
	return nil
}

// checkPlace returns why a node cannot join under the requested id, now or later; nil: it may. Only the leader can decide that.
func (p policy) checkPlace(req *peerpb.JoinRequest) *peerpb.Refusal {
	id := req.GetId()
	if id != 0 && p.members.removed(id) {
		return refuse(peerpb.Refusal_REMOVED, true, "leader %d was removed from cluster %s, and an id is not used twice: leave the id out, "+
			"and a new one is given", id, p.cluster())
	}
	for _, other := range p.members.logged.List {
		first := id == other.ID && req.GetAddress() == other.Address && other.Directory == "" // one of the first leaders, which has not been here yet
		same := first || req.GetDirectory() == other.Directory
		switch {
		case same && id != 0 && id != other.ID:
			return refuse(peerpb.Refusal_OTHER_MEMBER, true, "the data directory of the node at %s is that of leader %d, not %d: leave the id "+
				"out", req.GetAddress(), other.ID, id)
		case !same && id == other.ID:
			return refuse(peerpb.Refusal_OTHER_DIRECTORY, true, "cluster %s has a leader %d already, at %s and with another data directory: "+
				"leave the id out, and a new one is given; if this is to replace it, run \"bridgefour leaders remove %[2]d\" as well",
				p.cluster(), other.ID, other.Address)
		case !same && req.GetAddress() == other.Address:
			return refuse(peerpb.Refusal_OTHER_DIRECTORY, true, "leader %d of cluster %s has the address %s already: if it is gone for good, "+
				"run \"bridgefour leaders remove %[1]d\" first", other.ID, p.cluster(), other.Address)
		}
	}
	return nil
}

// checkAddress returns why other machines cannot dial address.
func checkAddress(address string) error {
	if err := transport.CheckAddress(address); err != nil {
		return err
	}
	if transport.IsUnspecified(address) {
		return fmt.Errorf("%s stands for every address of a machine", address)
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
