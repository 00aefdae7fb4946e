package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
)

// The cluster key is replaced in these steps, each of which a crash may interrupt:
//
//  1. The leader makes a key, stores it beside the present one, and gives it to each other leader, which does the same.
//  2. Once all have it, the log gets an authority of that key. Who applies that uses the key, certifies itself, and enrolls again.
//  3. The leader seals the secrets in the log again. Former keys are removed when none is sealed under them.
//  4. Authorities of former keys are accepted until all machines have a certificate by the new one.

const (
	resealEvery  = time.Minute
	formerKept   = time.Hour        // of a former key: a submit in progress may have sealed under it
	renewTimeout = 15 * time.Second // of machines that are connected
)

// giveKey gives the next key of the cluster to all leaders. They must be connected: one that does not get it could certify nothing.
func (p *Process) giveKey(ctx context.Context, key access.Key) error {
	members := p.replica.Members()
	if away := p.transport.Behind(state.FeatureLevel); len(away) > 0 {
		return api.Conflict("all leaders must get the new cluster key, and of leader %s there is no connection: start it, or remove it with 'bridgefour leaders remove'", numbers(away))
	}
	if err := p.security.key.SetNext(key); err != nil {
		return err
	}
	for _, m := range members.List {
		if m.ID == p.replica.ID() {
			continue
		}
		// Who has the present key can pretend to be any leader, except that it does not have its key.
		dial := func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := p.Dial(ctx, address)
			if err == nil && !p.isKeyOf(access.Fingerprint(access.LeafOf(conn)), m.Directory) {
				err = errors.Join(errors.New("its key is not the one that is enrolled for its data directory"), conn.Close())
			}
			return conn, err
		}
		if err := p.transport.GiveKey(ctx, m, dial, key[:]); err != nil {
			return api.Conflict("leader %d did not store the new cluster key, so the present one remains: %v", m.ID, err)
		}
	}
	if now := p.replica.Members(); !slices.EqualFunc(members.List, now.List, func(a, b replica.Member) bool { return a.ID == b.ID }) {
		return api.Conflict("the leaders have changed meanwhile, so the present cluster key remains: try again")
	}
	return nil
}

func numbers(ids []uint64) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ids)), ", "), "[]")
}

// isKeyOf reports whether the key with that fingerprint is the one of the leader with a data directory.
func (p *Process) isKeyOf(fingerprint, directory string) bool {
	e := p.Access().Leader(directory)
	return e != nil && e.Fingerprint == fingerprint
}

// onKey stores the next key of the cluster, which comes from the leader.
func (p *Process) onKey(ctx context.Context, key []byte) error {
	who := access.From(ctx)
	members := p.replica.Members()
	leader, _ := members.Get(p.replica.Status().LeaderID)
	switch {
	case p.security == nil:
		return errors.New("the connections of this leader are not encrypted")
	case leader.ID == p.replica.ID() || who.Name != leader.Directory || !p.isKeyOf(who.Machine, leader.Directory):
		return errors.New("the cluster key comes from the one that leads, and by its own key")
	case len(key) != len(access.Key{}):
		return fmt.Errorf("a cluster key has %d bytes, and this one %d", len(access.Key{}), len(key))
	}
	return p.security.key.SetNext(access.Key(key))
}

// followKey uses the key of the newest authority, and reports whether it did not before. A leader that was not there when the others got the key
// gets it in exchange for its certificate.
func (p *Process) followKey(ctx context.Context, newest *x509.Certificate) (switched bool, err error) {
	s := p.security
	before := s.key.Get()
	known, err := s.key.Follow(newest)
	if err != nil || known {
		return s.key.Get() != before, err
	}
	// Without the key this one may be unable to speak to the others otherwise, so it may not know who leads.
	var others []string
	for _, m := range p.replica.Members().List {
		if m.ID != p.replica.ID() {
			others = append(others, m.Address)
		}
	}
	raw, err := s.credentials.ClusterKey(ctx, others)
	if err != nil {
		return false, fmt.Errorf("%s in %s is not the key of the cluster any more, and another leader has to give it: %w", ClusterKeyFile, p.cfg.DataDir, err)
	}
	if len(raw) != len(access.Key{}) {
		return false, errors.New("the leader sent no cluster key")
	}
	if err := s.key.SetNext(access.Key(raw)); err != nil {
		return false, err
	}
	if known, err = s.key.Follow(newest); err == nil && !known {
		err = errors.New("the leader sent another cluster key than that of the authority in the log")
	}
	return known, err
}

// reseal seals the secrets again that are sealed under the former key. When there are none, and will be none, it forgets that.
func (n *Node) reseal(ctx context.Context, replaced time.Time) error {
	type sealed struct {
		job     state.JobID
		uid     string
		secrets []state.Secret
	}
	var list []sealed
	if err := n.do(ctx, func() {
		m := n.loop.controller.Machine()
		for _, id := range m.Jobs() {
			if job := m.Job(id); len(job.Spec.Secrets) > 0 {
				list = append(list, sealed{id, job.UID, job.Spec.Secrets})
			}
		}
	}); err != nil {
		return err
	}
	keys, rest := n.cfg.Key.all(), 0
	for _, job := range list {
		again := slices.Clone(job.secrets)
		for i, s := range again {
			if value, err := access.Open(keys.former, secretRecord(job.uid, s.Name), s.Sealed); err == nil {
				again[i].Sealed = access.Seal(keys.key, secretRecord(job.uid, s.Name), value)
			}
		}
		if slices.EqualFunc(job.secrets, again, func(a, b state.Secret) bool { return string(a.Sealed) == string(b.Sealed) }) {
			continue
		}
		rest++
		if n.ready.leading() {
			err := n.changeAccess(ctx, func(e *state.Entry, key string) { e.Reseal(key, job.job, again) })
			if err != nil && !api.IsStatus(err, http.StatusNotFound) { // it was forgotten meanwhile
				return err
			}
		}
	}
	if rest == 0 && time.Since(replaced) > formerKept {
		return n.cfg.Key.Forget()
	}
	return nil
}

// haveRenewed reports whether all machines whose certificates have not expired have one by the newest authority.
func haveRenewed(machines []*state.Enrolment, newest *state.Authority, now time.Time) bool {
	return !slices.ContainsFunc(machines, func(e *state.Enrolment) bool {
		return e.Revoked == 0 && e.Renewed < newest.Created && now.Before(time.UnixMilli(e.Renewed).Add(access.CertificateLife+time.Hour))
	})
}

// dropFormer removes all authorities but the newest, once the machines that are connected have a certificate by that.
func (p *Process) dropFormer(ctx context.Context, newest uint64) error {
	limited, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		leaders, workers := p.notRenewed()
		if len(leaders)+workers == 0 {
			break
		}
		select {
		case <-ticker.C:
			continue
		case <-limited.Done():
		}
		if len(leaders) > 0 {
			return api.Unavailable("the cluster has a new key, but leader %s has no certificate by it yet, so those of the former key are still accepted: look into its log, and run "+
				"'bridgefour ca rotate --key --now' again", numbers(leaders))
		}
		break // workers that do not renew join again
	}
	for _, a := range p.Access().Authorities() {
		if a.Number < newest {
			if err := p.DropAuthority(ctx, a.Number); err != nil && !api.IsStatus(err, http.StatusNotFound) {
				return err
			}
		}
	}
	return nil
}

// notRenewed returns the leaders, and the number of workers that are connected, without a certificate by the newest authority.
func (p *Process) notRenewed() (leaders []uint64, workers int) {
	tables := p.Access()
	list := tables.Authorities()
	created := list[len(list)-1].Created
	for _, m := range p.replica.Members().List {
		if e := tables.Leader(m.Directory); e == nil || e.Renewed < created {
			leaders = append(leaders, m.ID)
		}
	}
	_, all := p.views.Cluster()
	for i := range all {
		if e := tables.Enrolment(all[i].Identity); e != nil && e.Renewed < created && all[i].Status != state.WorkerDead.String() {
			workers++
		}
	}
	return leaders, workers
}
