package httpapi

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

type createToken struct {
	Body api.TokenRequest
}

type certify struct {
	Body api.CertificateRequest
}

// tokenPath names a token.
type revokeToken struct {
	ID string `path:"id" doc:"ID of the token" maxLength:"100"`
}

type rotate struct {
	Key bool `query:"key" doc:"Replace the cluster key too; all leaders must be connected. Certificates by the one before are accepted until all machines have renewed theirs"`
	Now bool `query:"now" doc:"With key: accept them no longer than it takes the connected machines to renew; others join again, and strings become invalid"`
}

func (a *API) addAccess() {
	addRead(a, operation(http.MethodGet, "/v1/access", "get-identity", "access", "Who this request is from"),
		func(ctx context.Context, _ *struct{}) (api.Identity, error) { return a.identity(access.From(ctx)), nil })
	addRead(a, operation(http.MethodGet, "/v1/access/tokens", "list-tokens", "access", "All tokens, oldest first, without their secrets"),
		func(context.Context, *struct{}) (api.TokenList, error) {
			return api.TokenList{Tokens: a.leader.Tokens()}, nil
		})
	addWrite(a, creation("/v1/access/tokens", "create-token", "access", "Create a token; its secret is in this answer only"), a.createToken)
	addRemoval(a, operation(http.MethodDelete, "/v1/access/tokens/{id}", "revoke-token", "access", "Revoke a token: requests that are in progress with it end"),
		func(ctx context.Context, in *revokeToken) error { return a.leader.RevokeToken(ctx, in.ID) })
	a.places["POST "+access.CertificatesPath] = byRedirect // a forwarded request would prove the key of the follower
	addWrite(a, creation(access.CertificatesPath, "create-certificate", "access", "Get a certificate for the key with which the connection was made, or renew it"),
		func(ctx context.Context, in *certify) (api.Certificate, error) {
			return a.certifier.Certify(ctx, in.Body)
		})
	addWrite(a, creation("/v1/access/authorities", "rotate-authority", "access",
		"Make a new certificate authority; certificates of the one before are accepted until they expire"),
		func(ctx context.Context, in *rotate) (api.Authority, error) {
			if in.Now && !in.Key {
				return api.Authority{}, api.Invalid("validation failed").With("query.now", "needs key", in.Now)
			}
			return a.certifier.RotateAuthority(ctx, in.Key, in.Now)
		})
	a.places["POST "+access.BrowserPath] = here // which keeps the login
	a.add(Route{
		Method: http.MethodPost, Path: access.BrowserPath, Tag: "access", Summary: "A one-time URL that lets a browser in, as this client",
		Handle: func(r *http.Request, _ func(any) error) (any, error) {
			return api.BrowserLogin{URL: a.url(r) + access.BrowserPath + "/" + a.policy.Login(r)}, nil
		},
	})
	login := Route{Method: http.MethodGet, Path: access.BrowserPath + "/{secret}", Tag: "access", Summary: "Let this browser in"}
	a.describe(login)
	a.mux.HandleFunc(login.Method+" "+login.Path, func(w http.ResponseWriter, r *http.Request) {
		cookie, err := a.policy.Enter(r, r.PathValue("secret"))
		if err != nil {
			a.writeError(w, r, err)
			return
		}
		http.SetCookie(w, cookie)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, entered)
	})
}

func (a *API) createToken(ctx context.Context, in *createToken) (api.NewToken, error) {
	ttl, err := tokenTTL(&in.Body)
	if err != nil {
		return api.NewToken{}, err
	}
	switch machine := access.IsMachine(in.Body.Role); {
	case machine && in.Body.User != "":
		return api.NewToken{}, api.Invalid("validation failed").With("body.user", "workers and leaders have no user", in.Body.User)
	case !access.IsPrintable(in.Body.User):
		return api.NewToken{}, api.Invalid("validation failed").With("body.user", "want a name of printable characters", in.Body.User)
	case !machine && in.Body.User == "" && in.Body.Role != access.RoleRead: // who only reads must not see the creator's jobs in full
		in.Body.User = access.From(ctx).Name
	}
	return a.leader.CreateToken(ctx, in.Body.Role, in.Body.User, ttl)
}

// entered leads a browser on after its login. A redirect would not do: a browser that comes from another site, as by a link, would not send the
// cookie with it.
const entered = `<!doctype html><title>Bridge Four</title><meta http-equiv="refresh" content="0; url=/"><a href="/">Bridge Four</a>`

// url is the base URL of this node for a browser beside the client of r.
func (a *API) url(r *http.Request) string {
	peer, host := access.PeerFrom(r.Context()), r.Host
	encrypted := peer.Encrypted
	if peer.Address == "" { // a unix socket
		for _, l := range a.leader.Leaders().Leaders {
			if l.ID == a.leader.Cluster().Node {
				host = l.Address
			}
		}
		encrypted = a.policy.Insecure() == "" && !transport.IsLoopback(host)
	}
	if encrypted {
		return transport.SchemeTLS + "://" + host
	}
	return transport.URL(host)
}

func (a *API) identity(who access.Principal) api.Identity {
	i := api.Identity{User: who.Name, Role: who.Role, Token: who.Token, Certificate: who.Outside, Cluster: a.leader.Cluster().Name}
	if !who.Expires.IsZero() {
		i.Expires = new(who.Expires.UTC())
	}
	return i
}

// Lifetimes of tokens: those of machines are needed only until they have joined.
const (
	machineTTLDefault = 24 * time.Hour
	userTTLDefault    = 90 * 24 * time.Hour
	ttlMin            = time.Second
	ttlMax            = 100 * 365 * 24 * time.Hour
)

// tokenTTL returns how long a new token is valid; 0: until it is revoked.
func tokenTTL(r *api.TokenRequest) (time.Duration, error) {
	if r.TTL == "" {
		if access.IsMachine(r.Role) {
			return machineTTLDefault, nil
		}
		return userTTLDefault, nil
	}
	ttl, err := time.ParseDuration(r.TTL)
	if err != nil || ttl != 0 && ttl < ttlMin || ttl > ttlMax {
		return 0, api.Invalid("validation failed").With("body.ttl", "want a duration from 1s to 100 years, such as 24h, or 0 for no end", r.TTL)
	}
	return ttl, nil
}
