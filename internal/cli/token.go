package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

func (a *app) tokenCommand() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List the tokens, without their secrets", Args: noArgs, Example: "  bridgefour token list"}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Revoke a token, or an outside certificate, at once: requests in progress with it end, too",
		Long: `Revoke a token at once. Requests in progress with it end. Instead of the ID of a token, give the file of a certificate of an outside authority, or
the fingerprint of its key as audit records have it: its holder is let in no more, and neither is a later certificate for the same key.`,
		Args: oneArg("the ID of a token, which 'bridgefour token list' shows, or the file of a certificate"),
	}
	return a.groupCommand("token", "Let other users and machines in: 'token create', 'token list', 'token revoke ID'",
		a.createTokenCommand(), readCommand(a, list, client.TokensPath, (*client.Client).Tokens, a.printTokens),
		removeCommand(a, revoke, revokeToken, "%s revoked\n"))
}

// revokeToken revokes a token by its ID, or a certificate by its file or fingerprint.
func revokeToken(c *client.Client, ctx context.Context, id string) error { //nolint:revive // as the methods of the client
	if text, err := os.ReadFile(id); err == nil {
		list, err := access.ParseCertificates(text)
		if err != nil {
			return usagef(nil, "%s: %v", id, err)
		}
		id = access.Fingerprint(list[0])
	}
	return c.RevokeToken(ctx, id)
}

func (a *app) createTokenCommand() *cobra.Command {
	var r readFlags
	var request api.TokenRequest
	var addresses string
	cmd := &cobra.Command{
		Use: "create --role ROLE", Short: "Create a token and print the string that lets its holder in", Args: noArgs,
		Long: `Create a token and print a string, once, for 'bridgefour login STRING', or for 'worker --join STRING' and 'leader --join STRING'.
Whoever has the string has the role. The roles:

  read       sees jobs and where their outputs lie, but no arguments, settings, logs and results of other users
  submit     submits jobs, and does everything with its own
  operator   does everything with all jobs, and drains workers
  admin      adds and removes leaders, workers and tokens too
  worker     joins as a worker
  leader     joins as a leader`,
		Example: `  bridgefour token create --role submit --user ann
  bridgefour token create --role worker --ttl 1h`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if request.Role == "" {
				return usagef(cmd, "no --role given: want one of %s", strings.Join(access.Roles, ", "))
			}
			var reach []string
			if addresses != "" {
				var err error
				if reach, err = transport.ParseDialList(addresses); err != nil {
					return usagef(cmd, "--address: %v", err)
				}
			}
			c, err := a.connect(r.cluster, 0)
			if err != nil {
				return err
			}
			token, err := c.CreateToken(cmd.Context(), request)
			if err != nil {
				return orInterrupted(cmd.Context(), err)
			}
			if reach != nil {
				j, err := transport.ParseJoin(token.Join)
				if err != nil {
					return err
				}
				j.Addresses = reach
				token.Join = j.String()
			}
			if r.json {
				return printJSON(a.stdout, token)
			}
			a.stderr.Printf("token %s: %s", token.ID, tokenText(&token.Token, time.Now()))
			_, err = fmt.Fprintln(a.stdout, token.Join)
			return err
		},
	}
	r.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&request.Role, "role", "", "what it allows: `"+strings.Join(access.Roles, ", ")+"`")
	restrictFlag(cmd, "role", access.Roles...)
	fs.StringVar(&request.User, "user", "", "`name` of the user whose jobs its holder submits and sees in full (default: you; with role read nobody)")
	fs.StringVar(&addresses, "address", "", "`addresses` by which its holder reaches the leaders, host:port, separated by commas, if not by their own: as through published ports of containers")
	fs.StringVar(&request.TTL, "ttl", "", "`time` for which it is valid, 0 for no end (default 24h for workers and leaders, 90 days for users)")
	return cmd
}

// tokenText describes a token in a line.
func tokenText(t *api.Token, now time.Time) string {
	text := "role " + t.Role
	if t.User != "" {
		text += ", user " + printable(t.User)
	}
	return text + ", expires " + expiryText(t, now)
}

func expiryText(t *api.Token, now time.Time) string {
	switch {
	case t.Expires == nil:
		return "never"
	case t.Expired:
		return "expired"
	}
	return "in " + durationText(max(0, t.Expires.Sub(now).Round(time.Second)))
}

func (a *app) printTokens(list api.TokenList) error {
	now := time.Now()
	t := newTable(a.stdout, "TOKEN", "ROLE", "USER", "CREATED", "EXPIRES")
	for i := range list.Tokens {
		token := &list.Tokens[i]
		t.row(token.ID, token.Role, orDash(printable(token.User)), ageText(token.Created, now), expiryText(token, now))
	}
	return t.flush()
}
