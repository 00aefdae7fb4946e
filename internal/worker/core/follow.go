package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// look has the driver look around for leaders when those that are known are of no use.
func (c *Core) look() {
	if at, ok := c.search.wantsLook(c.now); ok && !c.now.Before(at) {
		c.search.looking = true
		c.emit(Look{c.clusterID})
	}
}

func (c *Core) looked(in Candidates) {
	s := &c.search
	news := s.looked(in.Leaders, c.now)
	s.lookAt = s.lookAt.Add(-time.Duration(c.rng.Int64N(int64(lookWaitMin / 2)))) // workers that started together need not ask together
	blind := ""
	if in.Err != nil {
		blind = strings.ReplaceAll(in.Err.Error(), "\n", "; ")
	}
	if blind != s.blind {
		s.blind = blind
		if in.Err != nil {
			c.emit(Blind{in.Err})
		}
	}
	if c.session.phase != sessionDown {
		return
	}
	if news {
		c.session.retryAt = c.now
	} else {
		c.tellAlone()
	}
}

// waitForLeader has nobody to dial: until a leader that has refused may be asked again, or something is heard of another.
func (c *Core) waitForLeader() {
	_, _, c.session.retryAt = c.search.refused(c.now)
	c.tellAlone()
}

func (c *Core) tellAlone() {
	if reason, refused := c.search.why(c.now); reason != c.session.alone {
		c.session.alone = reason
		c.emit(Alone{reason, refused})
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// follows says whether the leader is the one to follow, and leaves it if not.
func (c *Core) follows(w *wire.Welcome) bool {
	s := &c.session
	name, id := c.cfg.Hello.GetClusterName(), w.GetClusterId()
	switch {
	case name != "" && w.GetCluster() != "" && w.GetCluster() != name:
		// A leader from before names were checked.
		c.emit(Disconnect{s.epoch})
		c.sessionEnded(fmt.Errorf("it leads cluster %q, and this worker was told to join %q", w.GetCluster(), name), true)
		return false
	case id != "" && c.clusterID != "" && id != c.clusterID:
		s.term = 0 // the cluster was recovered under a new id, and counts its terms anew
	}
	if w.GetTerm() < s.term {
		c.emit(Outdated{c.search.last, w.GetTerm(), s.term})
		c.leave(fmt.Errorf("it leads in term %d, which is over: another has led in term %d", w.GetTerm(), s.term))
		return false
	}
	s.term = w.GetTerm()
	if id != "" {
		c.clusterID = id
	}
	return true
}

func (c *Core) keep() {
	c.emit(Keep{Membership{ClusterID: c.clusterID, Leaders: slices.Clone(c.search.known)}})
}

// reasonOf is what a leader says when it refuses; its address is beside the point.
func reasonOf(err error) string {
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		return refused.Reason
	case err == nil:
		return ""
	}
	return err.Error()
}

// invite judges an invitation, and takes it.
func (c *Core) invite(in Invited) error {
	s := &c.search
	name := c.cfg.Hello.GetClusterName()
	leaders := cleanAddresses(in.Leaders)
	up := c.session.phase == sessionUp
	switch {
	case c.drain.on:
		return errors.New("this worker is leaving")
	case len(leaders) == 0:
		return errors.New("the invitation names no leader as host:port")
	case name != "" && in.ClusterName != "" && name != in.ClusterName:
		return fmt.Errorf("this worker was told to join cluster %q, and is invited to %q; start it with --cluster-name %[2]s",
			name, in.ClusterName)
	case c.clusterID != "" && in.ClusterID != c.clusterID:
		return fmt.Errorf("this worker belongs to cluster %s, and is invited to %q (%s); start it with another --data-dir "+
			"to have it join there", c.clusterID, in.ClusterName, orNone(in.ClusterID))
	case up && c.clusterID == "":
		return errors.New("this worker has a leader already")
	case up:
		return nil // it is there
	}
	s.invited, s.invitedTo, s.rounds = leaders, in.ClusterID, 0
	for _, a := range leaders {
		delete(s.refusals, a)
	}
	rest := slices.DeleteFunc(s.round, func(a string) bool { return slices.Contains(leaders, a) })
	s.round, s.tried, s.hint = slices.Concat(leaders, rest), nil, ""
	switch {
	case c.session.phase == sessionDown:
		c.session.retryAt = c.now
	case !slices.Contains(leaders, s.last):
		c.leave(errors.New("given up for an invitation"))
	}
	return nil
}

func orNone(id string) string {
	if id == "" {
		return "no id given"
	}
	return id
}

// RefusedError says that a leader will not have this worker as it is.
type RefusedError struct {
	Leader string // its address
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the leader at %s refuses this worker: %s", e.Leader, e.Reason)
}
