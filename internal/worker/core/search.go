package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	refusedWait  = time.Minute // a leader that has refused this worker is not asked again before
	leadersMax   = 64          // leaders of one kind that are remembered, and dials of one round
	hopsMax      = 2           // hints followed at once between two waits: two nodes may name each other
	electionWait = 400 * time.Millisecond
	lookAfter    = 3 // rounds in vain with known leaders before others are looked for: an election takes about so many
	lookWaitMin  = time.Second
	lookWaitMax  = 10 * time.Second
)

// search decides which leader is dialed next. It goes in rounds: each candidate once, without a wait between them, then
// a wait that grows from round to round.
type search struct {
	fixed   []string // by configuration
	known   []string // told by the leader of the last session, and the address under which it was reached
	invited []string // by an invitation, until the next session
	told    []string // by nodes that do not lead, until the next session: they may be of another cluster
	found   []string // by the last look around

	invitedTo string // the cluster of the invitation

	hint     string // the leader, as named by the node dialed last
	hops     int
	last     string         // dialed last
	round    []string       // still to be dialed before the next wait
	tried    []string       // dialed in this round
	rounds   int            // in vain, in a row
	alive    bool           // a node has answered in this round: there is an election, or it will know soon
	lively   bool           // in the round before
	silences map[string]int // dials in a row that a node let pass without a word

	refusals map[string]refusal // by address
	failure  string             // why the last dial was in vain

	looks    bool // there is somewhere to look around
	looking  bool
	lookAt   time.Time
	lookWait time.Duration
	blind    string // why the last look around found less than it might
}

// refusal keeps a leader out of the rounds until its time.
type refusal struct {
	reason string
	until  time.Time
}

func newSearch(cfg Config) search {
	return search{
		fixed: cleanAddresses(cfg.Leaders), known: cleanAddresses(cfg.Known), looks: cfg.Looks, lookWait: lookWaitMin,
		refusals: map[string]refusal{}, silences: map[string]int{},
	}
}

// patience is how long to wait for the first word of the node that is dialed now. One that is stopped or cut off must not keep
// this worker from the others: the new leader waits for its workers for two seconds only. But all may be far away, or busy.
func (s *search) patience(address string, now time.Time) time.Duration {
	if len(s.candidates(now)) < 2 {
		return WelcomeMax
	}
	most := WelcomeMax
	if s.alive || s.lively {
		most = wordNear
	}
	return min(most, wordMin<<min(s.silences[address], 8))
}

// silent notes that the node dialed last has let its time pass without a word.
func (s *search) silent() {
	if len(s.silences) > leadersMax { // addresses that are no more
		clear(s.silences)
	}
	s.silences[s.last]++
}

// answered notes that the node dialed last has said something.
func (s *search) answered() {
	s.alive = true
	delete(s.silences, s.last)
}

// cleanAddresses drops what cannot be dialed and what is there twice: lists come from other machines.
func cleanAddresses(list []string) []string {
	var clean []string
	for _, a := range list {
		if len(clean) < leadersMax && wire.CheckAddress(a) == nil && !slices.Contains(clean, a) {
			clean = append(clean, a)
		}
	}
	return clean
}

// candidates is every leader worth a try, best first; the one dialed last comes last.
func (s *search) candidates(now time.Time) []string {
	var all []string
	for _, list := range [][]string{s.invited, s.known, s.told, s.fixed, s.found} {
		for _, a := range list {
			if !slices.Contains(all, a) && !s.aside(a, now) {
				all = append(all, a)
			}
		}
	}
	if i := slices.Index(all, s.last); i >= 0 {
		all = append(slices.Delete(all, i, i+1), s.last)
	}
	return all
}

func (s *search) aside(address string, now time.Time) bool {
	r, ok := s.refusals[address]
	return ok && now.Before(r.until)
}

// begin makes a new round.
func (s *search) begin(now time.Time) {
	s.lively = s.alive
	s.round, s.tried, s.hops, s.alive = s.candidates(now), nil, 0, false
}

// more says whether the round goes on.
func (s *search) more(now time.Time) bool {
	return s.followsHint(now) || len(s.round) > 0 && len(s.tried) < leadersMax
}

func (s *search) followsHint(now time.Time) bool {
	return s.hint != "" && s.hops < hopsMax && !s.aside(s.hint, now)
}

// next takes the next one of the round, of which there must be more.
func (s *search) next(now time.Time) string {
	var a string
	if s.followsHint(now) {
		a = s.hint
		s.hops++
		s.round = slices.DeleteFunc(s.round, func(b string) bool { return b == a })
	} else {
		a = s.round[0]
		s.round = s.round[1:]
	}
	s.hint = ""
	s.tried = append(s.tried, a)
	s.last = a
	return a
}

// elsewhere takes what a node says that does not lead.
func (s *search) elsewhere(m *wire.Elsewhere, now time.Time) {
	s.answered()
	if hint := m.GetLeader(); wire.CheckAddress(hint) == nil && hint != s.last {
		s.hint = hint
		// It would send this worker to a leader that has refused it: its cluster need not be asked by another door.
		if r, ok := s.refusals[hint]; ok && now.Before(r.until) {
			s.refusals[s.last] = r
		}
	}
	s.told = cleanAddresses(m.GetLeaders())
	for _, a := range s.told {
		if a != s.hint && !slices.Contains(s.tried, a) && !slices.Contains(s.round, a) && !s.aside(a, now) {
			s.round = append(s.round, a)
		}
	}
}

// refuse notes a refusal, and says whether it is news: the same word of another leader of the cluster is not.
func (s *search) refuse(reason string, now time.Time) bool {
	for a, r := range s.refusals {
		if !now.Before(r.until.Add(refusedWait)) { // it was not asked again: it is no candidate any more
			delete(s.refusals, a)
		}
	}
	news := true
	for _, r := range s.refusals {
		news = news && r.reason != reason
	}
	s.refusals[s.last] = refusal{reason, now.Add(refusedWait)}
	return news
}

// refused is a refusal that holds, and who gave it.
func (s *search) refused(now time.Time) (address, reason string, until time.Time) {
	for a, r := range s.refusals {
		if now.Before(r.until) && (address == "" || r.until.Before(until) || r.until.Equal(until) && a < address) {
			address, reason, until = a, r.reason, r.until
		}
	}
	return address, reason, until
}

// arrived ends the search: the leader dialed last has welcomed this worker, and named the others.
func (s *search) arrived(leaders []string) {
	s.learn(leaders)
	s.invited, s.told, s.invitedTo = nil, nil, ""
	s.hint, s.round, s.rounds, s.hops, s.failure, s.blind = "", nil, 0, 0, "", ""
	s.lookAt, s.lookWait = time.Time{}, lookWaitMin
	s.alive, s.lively = false, false
	clear(s.refusals)
	clear(s.silences)
}

// learn takes the leaders of the cluster. The address by which this worker has come stays among them: it works from here,
// which those that leaders have of themselves need not.
func (s *search) learn(leaders []string) {
	leaders = cleanAddresses(leaders)
	if len(leaders) == 0 {
		leaders = s.known // a leader from before they were told
	}
	if !slices.Contains(leaders, s.last) {
		leaders = append(slices.Clone(leaders[:min(len(leaders), leadersMax-1)]), s.last)
	}
	s.known = leaders
}

// wantsLook says whether to look around for leaders that nobody has told of, and when.
func (s *search) wantsLook(now time.Time) (time.Time, bool) {
	if !s.looks || s.looking {
		return time.Time{}, false
	}
	if s.rounds >= lookAfter || len(s.known) == 0 && s.rounds > 0 || len(s.candidates(now)) == 0 {
		return s.lookAt, true
	}
	return time.Time{}, false
}

// looked takes what a look around has found, and says whether there is somebody new to dial.
func (s *search) looked(found []string, now time.Time) bool {
	before := s.candidates(now)
	s.looking = false
	s.lookAt = now.Add(s.lookWait)
	s.lookWait = min(2*s.lookWait, lookWaitMax)
	s.found = cleanAddresses(found)
	news := false
	for _, a := range s.found {
		if !slices.Contains(before, a) && !s.aside(a, now) {
			news = true
			s.round = append(s.round, a)
		}
	}
	return news
}

// why says, for people, why there is no leader; refused: because one refuses this worker.
func (s *search) why(now time.Time) (reason string, refused bool) {
	if by, why, _ := s.refused(now); by != "" {
		return (&RefusedError{Leader: by, Reason: why}).Error() + "; it is asked again every minute", true
	}
	all := s.candidates(now)
	switch {
	case len(all) == 0 && !s.looks:
		return "waits to be invited by a leader", false
	case len(all) == 0 && s.blind != "":
		return "no leader found: " + s.blind, false
	case len(all) == 0:
		return "no leader found yet; it goes on looking", false
	}
	reason = fmt.Sprintf("no leader reached at %s; it goes on trying", strings.Join(all, ", "))
	if s.failure != "" {
		reason += ": " + s.failure
	}
	if s.blind != "" {
		reason += "; " + s.blind
	}
	return reason, false
}
