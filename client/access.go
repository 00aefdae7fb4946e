package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// Access is how a client reaches a cluster, and proves who it is.
type Access struct {
	Cluster   []string `yaml:"cluster"`             // URLs or addresses of leaders
	Authority string   `yaml:"authority,omitempty"` // hash of the key of the cluster's certificate authority, whose certificates alone are accepted; empty: those of the system
	Token     string   `yaml:"token,omitempty"`     // a secret

	// Files of an outside authority, such as a company's, whose certificates the leaders present, for their host names; empty: those of the
	// system. The certificate of this client, with its key, tells who it is, in place of a token.
	TLSAuthority   string `yaml:"tls-ca,omitempty"`
	TLSCertificate string `yaml:"tls-cert,omitempty"`
	TLSKey         string `yaml:"tls-key,omitempty"`
}

// AccessFile is the content of an access file: a context for each cluster.
type AccessFile struct {
	Current  string            `yaml:"current,omitempty"`
	Contexts map[string]Access `yaml:"contexts"`
}

// AccessEnv is the environment variable with an access file: its path, or its text, or a join string.
const AccessEnv = "BRIDGEFOUR_ACCESS"

// accessBytesMax bounds an access file.
const accessBytesMax = 1 << 20

// contextDefault is the name of the context of a join string.
const contextDefault = "default"

// AccessPath is the access file of this user.
func AccessPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "bridgefour", "access.yaml"), nil
}

// DefaultAccess returns the current context of the access file that AccessEnv names, or else of the user's. It is nil if there is none.
func DefaultAccess() (*Access, error) {
	f, err := DefaultAccessFile()
	if err != nil || f.Current == "" {
		return nil, err
	}
	return new(f.Contexts[f.Current]), nil
}

// DefaultAccessFile reads the access file that AccessEnv names, or else the user's; one that does not exist is empty.
func DefaultAccessFile() (AccessFile, error) {
	if given := os.Getenv(AccessEnv); given != "" {
		f, err := ReadAccess(given)
		if err == nil && f.Current == "" {
			err = errors.New("the access file has no current context")
		}
		if err != nil {
			return f, fmt.Errorf("%s: %w", AccessEnv, err)
		}
		return f, nil
	}
	path, err := AccessPath()
	if err != nil {
		return AccessFile{}, nil //nolint:nilerr // a process without a home has no access file
	}
	f, err := ReadAccess(path)
	if errors.Is(err, fs.ErrNotExist) {
		return AccessFile{}, nil
	}
	return f, err
}

// ReadAccess reads an access file, given by its path, as its text, or as a join string.
func ReadAccess(pathOrText string) (AccessFile, error) {
	if transport.IsJoin(pathOrText) || strings.ContainsAny(pathOrText, "\n{") {
		return ParseAccess(pathOrText)
	}
	info, err := os.Stat(pathOrText)
	if err != nil && filepath.IsAbs(pathOrText) {
		return AccessFile{}, fmt.Errorf("access file: %w", err)
	}
	if err != nil {
		if wrapped, ok := errors.AsType[*fs.PathError](err); ok {
			err = wrapped.Err // the path may be a part of a secret
		}
		return AccessFile{}, fmt.Errorf("want the path of an access file, its text, or a string of 'bridgefour token create' that begins with b4: and is complete: %w", err)
	}
	if info.Size() > accessBytesMax {
		return AccessFile{}, fmt.Errorf("%s has %d bytes, and an access file at most %d", pathOrText, info.Size(), accessBytesMax)
	}
	text, err := os.ReadFile(pathOrText)
	if err != nil {
		return AccessFile{}, err
	}
	f, err := ParseAccess(string(text))
	if err != nil {
		return f, fmt.Errorf("%s: %w", pathOrText, err)
	}
	return f, nil
}

// ParseAccess parses the text of an access file (YAML), or a join string, which makes a file of one context. Its errors do not contain
// the text, which is a secret.
func ParseAccess(text string) (AccessFile, error) {
	if transport.IsJoin(strings.TrimSpace(text)) {
		a, err := JoinAccess(text)
		return AccessFile{Current: contextDefault, Contexts: map[string]Access{contextDefault: a}}, err
	}
	var f AccessFile
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	err := dec.Decode(&f)
	if err == nil {
		err = dec.Decode(new(yaml.Node)) // want the end
	}
	if !errors.Is(err, io.EOF) {
		return AccessFile{}, errors.New("not an access file: want YAML with current and contexts, each with cluster, and authority and token, or tls-ca, tls-cert and tls-key, as 'bridgefour login' writes it")
	}
	if _, ok := f.Contexts[f.Current]; f.Current != "" && !ok {
		return AccessFile{}, fmt.Errorf("the current context is %q, and there is none of that name: it has %s", f.Current, strings.Join(slices.Sorted(maps.Keys(f.Contexts)), ", "))
	}
	for name, a := range f.Contexts {
		if err := a.check(); err != nil {
			return AccessFile{}, fmt.Errorf("context %q: %w", name, err)
		}
	}
	return f, nil
}

// JoinAccess returns the access that a join string gives.
func JoinAccess(text string) (Access, error) {
	j, err := transport.ParseJoin(text)
	if err != nil {
		return Access{}, err
	}
	a := Access{Cluster: j.Addresses, Token: j.Token}
	if j.Authority != nil {
		a.Authority = j.Authority.String()
	}
	return a, nil
}

// pin returns the pin of the authority; nil: there is none.
func (a *Access) pin() (*transport.Pin, error) {
	if a == nil || a.Authority == "" {
		return nil, nil //nolint:nilnil // no pin
	}
	p, err := transport.ParsePin(a.Authority)
	return &p, err
}

// outside returns the files of an outside authority; none in a nil access.
func (a *Access) outside() transport.Files {
	if a == nil {
		return transport.Files{}
	}
	return transport.Files{Authority: a.TLSAuthority, Certificate: a.TLSCertificate, Key: a.TLSKey}
}

// check returns an error if a cannot be used.
func (a *Access) check() error {
	if len(a.Cluster) == 0 {
		return errors.New("cluster lists no leader")
	}
	if _, err := a.pin(); err != nil {
		return err
	}
	if strings.ContainsFunc(a.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the token is damaged")
	}
	if a.Authority != "" && a.outside() != (transport.Files{}) {
		return errors.New("it has an authority, which is the cluster's own, and tls-ca, tls-cert or tls-key, which are for an outside one: remove one of them")
	}
	return a.outside().Check()
}

// authorize adds the token to a request, unless others on the network could read it, or the server is one that another has named, and neither
// its certificate is by the authority of the access nor are all on this machine.
func (c *Client) authorize(r *http.Request) {
	a := c.options.Access
	if a == nil || a.Token == "" {
		return
	}
	local := isLocal(r.URL.Hostname())
	if secure := r.URL.Scheme == "https"; secure && a.Authority != "" || (secure || local) && c.servers.given(r.URL, local) {
		r.Header.Set("Authorization", "Bearer "+a.Token)
	}
}

// isLocal reports whether a host of a URL is this machine.
func isLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || transport.IsUnix(host) || err == nil && ip.IsLoopback()
}

// Paths of the API, for Raw.
const (
	IdentityPath  = "/v1/access"
	TokensPath    = "/v1/access/tokens"
	QuotasPath    = "/v1/quotas"
	RetentionPath = "/v1/retention"

	authoritiesPath = "/v1/access/authorities"
)

// Identity returns who the requests of this client are from.
func (c *Client) Identity(ctx context.Context) (api.Identity, error) {
	return ask[api.Identity](ctx, c, get(IdentityPath))
}

// Tokens returns all tokens, oldest first.
func (c *Client) Tokens(ctx context.Context) (api.TokenList, error) {
	return ask[api.TokenList](ctx, c, get(TokensPath))
}

// BrowserLogin returns a one-time URL that lets a browser in, as this client.
func (c *Client) BrowserLogin(ctx context.Context) (api.BrowserLogin, error) {
	return ask[api.BrowserLogin](ctx, c, repeatable(http.MethodPost, "/v1/access/browser"))
}

// CreateToken creates a token. Its secret is in this answer only.
func (c *Client) CreateToken(ctx context.Context, r api.TokenRequest) (api.NewToken, error) {
	return askWith[api.NewToken](ctx, c, change(http.MethodPost, TokensPath), r)
}

// RotateAuthority makes a new certificate authority.
func (c *Client) RotateAuthority(ctx context.Context) (api.Authority, error) {
	return ask[api.Authority](ctx, c, change(http.MethodPost, authoritiesPath))
}

// RotateKey replaces the cluster key, and makes a certificate authority of the new one. Certificates of the key before are accepted until all machines
// have renewed theirs, or, with now, until those that are connected have.
func (c *Client) RotateKey(ctx context.Context, now bool) (api.Authority, error) {
	path := withQuery(authoritiesPath, parameters{"key": true, "now": now})
	return ask[api.Authority](ctx, c, request{method: http.MethodPost, path: path, timeout: keyTimeout})
}

// keyTimeout is longer than the leaders need to replace the cluster key, or to find out that they cannot.
const keyTimeout = 90 * time.Second

// RevokeToken revokes a token, and ends the requests that are in progress with it.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.remove(ctx, TokensPath+"/"+url.PathEscape(id))
}

// Quotas returns all quotas, by user.
func (c *Client) Quotas(ctx context.Context) (api.QuotaList, error) {
	return ask[api.QuotaList](ctx, c, get(QuotasPath))
}

// SetQuota sets what a user may use of the cluster; * stands for all users without a quota of their own.
func (c *Client) SetQuota(ctx context.Context, user string, r api.QuotaRequest) (api.Quota, error) {
	return askWith[api.Quota](ctx, c, repeatable(http.MethodPut, QuotasPath+"/"+url.PathEscape(user)), r)
}

// Retentions returns which jobs are kept after their end: of all jobs together, then by user.
func (c *Client) Retentions(ctx context.Context) (api.RetentionList, error) {
	return ask[api.RetentionList](ctx, c, get(RetentionPath))
}

// SetRetention sets which jobs of a user are kept after their end; * stands for the jobs of all users together.
func (c *Client) SetRetention(ctx context.Context, user string, r api.RetentionRequest) (api.Retention, error) {
	return askWith[api.Retention](ctx, c, repeatable(http.MethodPut, RetentionPath+"/"+url.PathEscape(user)), r)
}

// RemoveQuota removes the quota of a user.
func (c *Client) RemoveQuota(ctx context.Context, user string) error {
	return c.remove(ctx, QuotasPath+"/"+url.PathEscape(user))
}
