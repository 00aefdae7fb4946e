package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// inviteMax bounds the time until an invited worker answers.
const inviteMax = 5 * time.Second

// inviteWorker invites the worker that listens at address to this cluster.
func (p *Process) inviteWorker(ctx context.Context, address string, id *uint64) error {
	members := p.replica.Members()
	in := api.Invitation{ClusterID: members.Cluster, ClusterName: p.cfg.ClusterName, Claim: id}
	for _, m := range members.List {
		in.Leaders = append(in.Leaders, m.Address)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, inviteMax)
	defer cancel()
	base, t := transport.URL(address), transport.NewHTTP()
	if s := p.security; s != nil {
		base = transport.SchemeTLS + "://" + address
		t = transport.NewHTTPS(transport.ClientTLS(access.RoleWorker, s.credentials.Pins, s.credentials.Certificate))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/worker/invite", bytes.NewReader(body))
	if err != nil {
		return api.Invalid("invalid worker address %q: want host:port", address)
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: t}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	switch {
	case err != nil && p.security != nil:
		return errors.Join(errNotReached, api.Conflict("no worker of this cluster reached at %s (%v): start one there with --listen %[1]s, and with --join STRING of 'bridgefour token create "+
			"--role worker', which it needs because the connections of this cluster are encrypted", address, err))
	case err != nil:
		return errors.Join(errNotReached, api.Conflict("no worker reached at %s (%v): start one with 'bridgefour worker --leader wait --listen %[1]s'", address, err))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("invite worker at %s: %w", address, err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		p := &api.Problem{}
		if json.Unmarshal(text, p) == nil && p.Detail != "" {
			return api.Conflict("the worker at %s refused: %s", address, p.Detail)
		}
		return api.Conflict("%s is not a worker: it answered %s", address, resp.Status)
	}
	return nil
}
