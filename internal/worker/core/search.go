package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	refusedWait   = time.Minute            // before a leader that refused this worker is asked again
	leadersMax    = 64                     // leaders of one source, and dials of one round
	hintsMax      = 2                      // hints followed in one round: two nodes may name each other
	electionWait  = 400 * time.Millisecond // between rounds, at most, while nodes answer: an election is under way
	discoverAfter = 3                      // failed rounds with known leaders before a discovery: an election takes about as long
	discoverMin   = time.Second            // between two discoveries, at first
	discoverMax   = 10 * time.Second       // and at last
	answerMin     = 400 * time.Millisecond // from dialing to a node's first message, at first
	answerMax     = time.Second            // the same, at most, while other nodes answer; then from message to message
)

// source is where an address comes from. Addresses of a lower one are dialed first.
type source uint8

const (
	fromInvite    source = iota // until the next session
	fromLeader                  // of the last session; includes the address under which it was reached
	fromFollower                // nodes that do not lead; until the next session, because they may be of another cluster
	fromConfig                  // the worker's configuration
	fromDiscovery               // the last one
	sources
)

// candidate is an address that may be a leader's.
type candidate struct {
	address  string
	rank     [sources]int // in the list of a source, from 1; 0: not in it
	tried    bool         // in this round
	timeouts int          // consecutive dials without an answer
	refusal  string       // reason of its last refusal
	askAgain time.Time    // after its last refusal; zero: it has not refused
}

// noPriority is the priority of an address that no source has any more.
const noPriority = int(sources) * (leadersMax + 1)

// priority orders candidates by their best source and the rank in it.
func (d *candidate) priority() int {
	for s, rank := range d.rank {
		if rank > 0 {
			return s*(leadersMax+1) + rank
		}
	}
	return noPriority
}

func (d *candidate) refuses(now time.Time) bool { return now.Before(d.askAgain) }

// search decides which leader to dial next. It works in rounds: each candidate once, without a wait between them, then a wait
// that grows from round to round.
type search struct {
	list      []*candidate // in the order of the round
	leaders   []string     // of the worker's cluster
	last      *candidate   // dialed last; never nil
	invitedTo string       // the cluster of the invitation
	waits     bool         // for an invitation only
	failure   string       // of the last dial

	round     round
	failed    int  // rounds in a row
	wasAlive  bool // round.alive of the round before
	discovery discovery
}

// round is one pass over the candidates.
type round struct {
	dials int
	hint  string // the leader, according to the node dialed last
	hints int    // followed
	alive bool   // a node has answered: an election is under way, or it will be informed soon
}

// discovery is the search for leaders that no node has named.
type discovery struct {
	on      bool // by configuration
	running bool
	at      time.Time // not before
	wait    time.Duration
	failure string // of the last one
}

func newSearch(cfg Config) search {
	if cfg.Waits {
		return waitingSearch(false)
	}
	s := search{last: &candidate{}, discovery: discovery{on: cfg.Discovers, wait: discoverMin}}
	s.set(fromConfig, cfg.Leaders)
	s.leaders = s.set(fromLeader, cfg.Known)
	s.begin(time.Time{})
	return s
}

// waitingSearch waits for an invitation. A discovery may still be running.
func waitingSearch(discovering bool) search {
	return search{waits: true, last: &candidate{}, discovery: discovery{running: discovering, wait: discoverMin}}
}

// cleanAddresses drops invalid addresses and duplicates.
func cleanAddresses(list []string) []string {
	var clean []string
	for _, a := range list {
		if len(clean) < leadersMax && transport.CheckDial(a) == nil && !slices.Contains(clean, a) {
			clean = append(clean, a)
		}
	}
	return clean
}

// find returns the candidate of an address, and adds it if it is new.
func (s *search) find(address string) *candidate {
	i := slices.IndexFunc(s.list, func(d *candidate) bool { return d.address == address })
	if i >= 0 {
		return s.list[i]
	}
	d := &candidate{address: address}
	s.list = append(s.list, d)
	return d
}

// set replaces the list of a source, and returns the valid addresses.
func (s *search) set(from source, addresses []string) []string {
	clean := cleanAddresses(addresses)
	for _, d := range s.list {
		d.rank[from] = 0
	}
	for i, a := range clean {
		s.find(a).rank[from] = i + 1
	}
	return clean
}

// candidates returns the addresses worth a dial, in the order of the round.
func (s *search) candidates(now time.Time) []string {
	var list []string
	for _, d := range s.list {
		if d.priority() < noPriority && !d.refuses(now) {
			list = append(list, d.address)
		}
	}
	return list
}

// begin starts a round: the best sources first, the leader dialed last at the end.
func (s *search) begin(now time.Time) {
	s.wasAlive, s.round = s.round.alive, round{hint: s.round.hint}
	s.list = slices.DeleteFunc(s.list, func(d *candidate) bool {
		return d.priority() == noPriority && d != s.last && !now.Before(d.askAgain.Add(refusedWait)) // [search.refuse] needs it no more
	})
	order := func(d *candidate) int {
		if d == s.last {
			return noPriority
		}
		return d.priority()
	}
	slices.SortStableFunc(s.list, func(a, b *candidate) int { return order(a) - order(b) })
	for _, d := range s.list {
		d.tried = d.priority() == noPriority
	}
}

// next is the candidate to dial next; nil: the round is over.
func (s *search) next(now time.Time) *candidate {
	if r := &s.round; r.hint != "" && r.hints < hintsMax {
		if d := s.find(r.hint); !d.refuses(now) {
			return d
		}
	}
	if s.round.dials >= leadersMax {
		return nil
	}
	for _, d := range s.list {
		if !d.tried && !d.refuses(now) {
			return d
		}
	}
	return nil
}

// dial marks the candidate as dialed.
func (s *search) dial(d *candidate) {
	if d.address == s.round.hint {
		s.round.hints++
	}
	s.round.hint = ""
	s.round.dials++
	d.tried = true
	s.last = d
}

// answerTimeout is the wait for the first message of the node that is dialed. A node that is stopped or cut off must not keep
// this worker from the others: the new leader waits for its workers for two seconds only. But all may be far away, or busy.
func (s *search) answerTimeout(now time.Time) time.Duration {
	if len(s.candidates(now)) < 2 {
		return WelcomeTimeout
	}
	most := WelcomeTimeout
	if s.round.alive || s.wasAlive {
		most = answerMax
	}
	return min(most, answerMin<<min(s.last.timeouts, 8))
}

// answered records that the node dialed last has answered.
func (s *search) answered() {
	s.round.alive = true
	s.last.timeouts = 0
}

// redirect records the answer of a node that does not lead.
func (s *search) redirect(m *wire.Elsewhere, now time.Time) {
	s.answered()
	s.set(fromFollower, m.GetLeaders())
	hint := m.GetLeader()
	if transport.CheckAddress(hint) != nil || hint == s.last.address {
		return
	}
	s.round.hint = hint
	// The hint may name a leader that has refused this worker: that holds for its followers.
	if d := s.find(hint); d.refuses(now) {
		s.last.refusal, s.last.askAgain = d.refusal, d.askAgain
	}
}

// refuse records a refusal by the node dialed last. It reports whether the reason is new: leaders of one cluster give the same.
func (s *search) refuse(reason string, now time.Time) bool {
	added := !slices.ContainsFunc(s.list, func(d *candidate) bool {
		return d.refusal == reason && now.Before(d.askAgain.Add(refusedWait))
	})
	s.last.refusal, s.last.askAgain = reason, now.Add(refusedWait)
	return added
}

// refused is the refusal in force that ends first; nil: there is none.
func (s *search) refused(now time.Time) *candidate {
	var first *candidate
	for _, d := range s.list {
		if d.refuses(now) && (first == nil || d.askAgain.Before(first.askAgain)) {
			first = d
		}
	}
	return first
}

// welcomed ends the search: the leader dialed last has accepted this worker, and named the others.
func (s *search) welcomed(leaders []string) {
	s.learn(leaders)
	s.set(fromInvite, nil)
	s.set(fromFollower, nil)
	for _, d := range s.list {
		d.timeouts, d.refusal, d.askAgain = 0, "", time.Time{}
	}
	s.invitedTo, s.failure, s.failed = "", "", 0
	s.round, s.wasAlive = round{}, false
	s.discovery = discovery{on: s.discovery.on, running: s.discovery.running, wait: discoverMin}
}

// learn records the leaders of the cluster. The address of the session is kept among them: unlike those that leaders have of
// themselves, it is known to work from here.
func (s *search) learn(leaders []string) {
	leaders = cleanAddresses(leaders)
	if len(leaders) == 0 {
		leaders = s.leaders // the leader is of a version that names none
	}
	if own := s.last.address; !slices.Contains(leaders, own) {
		leaders = append(slices.Clone(leaders[:min(len(leaders), leadersMax-1)]), own)
	}
	s.leaders = s.set(fromLeader, leaders)
}

// discoverAt is when to start a discovery; false: not now.
func (s *search) discoverAt(now time.Time) (time.Time, bool) {
	if !s.discovery.on || s.discovery.running {
		return time.Time{}, false
	}
	if s.failed >= discoverAfter || s.failed > 0 && len(s.leaders) == 0 || len(s.candidates(now)) == 0 {
		return s.discovery.at, true
	}
	return time.Time{}, false
}

// discovered records the result of a discovery. It reports whether there is an address to dial in this round.
func (s *search) discovered(found []string, failure string, now time.Time) bool {
	d := &s.discovery
	d.running, d.failure = false, failure
	d.at = now.Add(d.wait)
	d.wait = min(2*d.wait, discoverMax)
	if s.waits {
		return false
	}
	s.set(fromDiscovery, found)
	return s.next(now) != nil
}

// reason is why there is no leader, for users. refused: a leader refuses this worker.
func (s *search) reason(now time.Time) (reason string, refused bool) {
	if by := s.refused(now); by != nil {
		return (&RefusedError{Leader: by.address, Reason: by.refusal}).Error() + "; trying again every minute", true
	}
	all := s.candidates(now)
	failure := s.discovery.failure
	switch {
	case len(all) == 0 && !s.discovery.on:
		return "waiting for an invitation by a leader", false
	case len(all) == 0 && failure != "":
		return "no leader found: " + failure, false
	case len(all) == 0:
		return "no leader found yet; still searching", false
	}
	reason = fmt.Sprintf("no leader reached at %s; still trying", strings.Join(all, ", "))
	if s.failure != "" {
		reason += ": " + s.failure
	}
	if failure != "" {
		reason += "; " + failure
	}
	return reason, false
}

// RefusedError reports that a leader rejects this worker as it is configured.
type RefusedError struct {
	Leader string // its address
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the leader at %s refuses this worker: %s", e.Leader, e.Reason)
}
