package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/bridgefour/bridgefour/api"
)

// Paths of the API, for Raw.
const (
	IdentityPath = "/v1/access"
	TokensPath   = "/v1/access/tokens"
)

// Identity returns who the requests of this client are from.
func (c *Client) Identity(ctx context.Context) (api.Identity, error) {
	var who api.Identity
	err := c.call(ctx, get(IdentityPath), &who)
	return who, err
}

// Tokens returns all tokens, oldest first.
func (c *Client) Tokens(ctx context.Context) (api.TokenList, error) {
	var list api.TokenList
	err := c.call(ctx, get(TokensPath), &list)
	return list, err
}

// CreateToken creates a token. Its secret is in this answer only.
func (c *Client) CreateToken(ctx context.Context, r api.TokenRequest) (api.NewToken, error) {
	var token api.NewToken
	body, err := json.Marshal(r)
	if err != nil {
		return token, err
	}
	err = c.call(ctx, request{
		method: http.MethodPost, path: TokensPath, body: bytesPayload(body), kind: "application/json", timeout: attemptTimeout,
	}, &token)
	return token, err
}

// RevokeToken revokes a token, and ends the requests that are in progress with it.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: TokensPath + "/" + url.PathEscape(id), timeout: attemptTimeout}, nil)
}
