package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/compat"
	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker"
)

// Worker is a worker and its HTTP listener. Embedded workers have no listener.
type Worker struct {
	*worker.Worker

	listener net.Listener
	policy   *access.Policy
	logger   *slog.Logger
}

// Listener configures the HTTP listener of a worker.
type Listener struct {
	Listen    string   // empty: none
	Advertise string   // empty: the listen address
	Hosts     []string // further names that clients use for it
	Insecure  bool
	TLS       *access.Encryption // nil: none
}

// OpenWorker locks the data directory and opens the listener. The caller must call Run or Close.
func OpenWorker(ctx context.Context, cfg worker.Config, l Listener) (*Worker, error) {
	s := &Worker{logger: cfg.Logger}
	if l.Listen != "" {
		var err error
		if s.listener, err = transport.ListenHTTP(ctx, l.Listen, cfg.Logger); err != nil {
			return nil, err
		}
		cfg.Address = l.Advertise
		if l.Advertise == "" {
			cfg.Address = discover.Reachable(ctx, s.listener.Addr())
		}
		cfg.Announce = announcer(&cfg)
		s.policy = access.NewPolicy(access.Options{
			Hosts: append(l.Hosts, l.Listen, cfg.Address, access.WorkerHost), Insecure: l.Insecure, Lookup: s.findToken,
		})
		if l.TLS != nil {
			s.listener = l.TLS.Listen(s.listener, cfg.Logger)
		}
	}
	w, err := worker.New(cfg)
	if err != nil {
		return nil, errors.Join(err, s.closeListener())
	}
	s.Worker = w
	return s, nil
}

// Addr is the address of the listener.
func (s *Worker) Addr() net.Addr { return s.listener.Addr() }

// Close releases the resources of OpenWorker when Run is not called.
func (s *Worker) Close() error { return errors.Join(s.closeListener(), s.Worker.Close()) }

func (s *Worker) closeListener() error {
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// findToken implements access.Lookup.
func (s *Worker) findToken(ctx context.Context, token, address, action string) (*state.Token, error) {
	holder, err := s.FindToken(ctx, &wire.TokenRequest{
		Token: strings.ToValidUTF8(token, "?"), Address: address, Action: wire.FailureMessage(action),
	})
	switch {
	case err == nil:
		return &state.Token{ID: holder.GetId(), Role: holder.GetRole(), User: holder.GetUser()}, nil
	case errors.Is(err, worker.ErrNoLeader):
		return nil, api.Unavailable("the token cannot be checked: only a leader knows it, and this worker has none: %s", cmp.Or(workerState{s.Worker}.NotReady(), "it was lost"))
	case status.Code(err) == codes.Unauthenticated:
		return nil, api.NewProblem(http.StatusUnauthorized, "%s", status.Convert(err).Message())
	case status.Code(err) == codes.Unimplemented:
		return nil, api.Unavailable("the token cannot be checked: the leader has an older version, which does not do that for workers: upgrade it")
	}
	return nil, api.Unavailable("the token cannot be checked: only a leader knows it, and that of this worker does not answer: %s", status.Convert(err).Message())
}

// announcer makes a worker known to leaders on the network while it has none.
func announcer(cfg *worker.Config) func(ctx context.Context, identity, clusterID string) {
	return func(ctx context.Context, identity, clusterID string) {
		discover.Announce(ctx, discover.Announcement{
			Role: discover.Worker, ID: identity, Address: cfg.Address, ClusterID: clusterID, ClusterName: cfg.ClusterName,
			Version: cfg.Version, Slots: SlotsOfWorker(cfg.Slots, 1),
		}, cfg.Logger)
	}
}

// Run works until ctx ends and the drain that this starts is complete.
func (s *Worker) Run(ctx context.Context) error {
	if s.listener == nil {
		return errors.Join(s.Worker.Run(ctx), s.Worker.Close())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	server := httpapi.Server(serving, httpapi.NewWorker(httpapi.WorkerOptions{
		Worker: workerState{s.Worker}, Routes: compat.WorkerRoutes(workerState{s.Worker}), Metrics: s.Metrics(), Policy: s.policy,
	}), s.logger)
	var serve sync.WaitGroup
	serve.Go(func() {
		if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.logger.ErrorContext(serving, "http listener of the worker failed", "error", err)
		}
	})
	ended := NotifySystemd(ctx, s.listener.Addr(), s.logger)
	err := s.Worker.Run(ctx)
	ended()
	stop()
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if server.Shutdown(shutdown) != nil {
		_ = server.Close() // ends the requests that are left
	}
	serve.Wait()
	if err != nil {
		err = fmt.Errorf("worker: %w", err)
	}
	return errors.Join(err, s.Worker.Close())
}

// workerState is the state of a worker for its HTTP listener.
type workerState struct{ *worker.Worker }

// ID implements compat.Worker.
func (s workerState) ID() uint64 {
	state := s.State()
	if state.Claim > 0 {
		return state.Claim - 1
	}
	return state.Worker
}

// SlotStatus implements compat.Worker.
func (s workerState) SlotStatus() (list []string) {
	for _, slot := range s.Slots() {
		list = append(list, slot.Status.Text())
	}
	return list
}

// Invite implements httpapi.Worker.
func (s workerState) Invite(ctx context.Context, in api.Invitation) error {
	claim := uint64(0)
	if in.Claim != nil {
		claim = *in.Claim + 1
	}
	return s.Worker.Invite(ctx, in.Leaders, in.ClusterID, in.ClusterName, claim)
}

// NotReady implements httpapi.Worker.
func (s workerState) NotReady() string {
	state := s.State()
	if state.Connected || state.Reason != "" {
		return state.Reason
	}
	return "searching for a leader"
}
