package cli

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// Flags for the files of an outside authority.
const (
	flagAuthority   = "tls-ca"
	flagCertificate = "tls-cert"
	flagKey         = "tls-key"
)

// addOutside adds the flags for the files of an outside authority. The texts say what those of this command are for.
func addOutside(cmd *cobra.Command, authority, certificate string) {
	cmd.Flags().String(flagAuthority, "", "`file` with "+authority)
	cmd.Flags().String(flagCertificate, "", "`file` with "+certificate)
	cmd.Flags().String(flagKey, "", "`file` with the key of --tls-cert")
	markSecretFile(cmd, flagKey, "")
}

// addClientOutside adds the flags for the files of an outside authority to a command that uses a cluster.
func addClientOutside(cmd *cobra.Command) {
	addOutside(cmd, "the authority of the leaders' certificates, such as a company's (default: those of the system)",
		"your certificate, of which the subject has your name (CN) and role (O=bridgefour:ROLE), in place of a token")
}

// outsideFiles returns the files that the flags of a command name, with absolute paths; none if it has no such flags.
func outsideFiles(cmd *cobra.Command) (f transport.Files, err error) {
	for name, to := range map[string]*string{flagAuthority: &f.Authority, flagCertificate: &f.Certificate, flagKey: &f.Key} {
		if *to, _ = cmd.Flags().GetString(name); *to == "" {
			continue
		}
		if *to, err = filepath.Abs(*to); err != nil {
			return f, err
		}
	}
	if err := f.Check(); err != nil {
		return f, usagef(cmd, "%v", err)
	}
	return f, nil
}

// withOutside returns an access that uses the files of an outside authority, if there are any, in place of those that it has.
func withOutside(given *client.Access, f transport.Files) *client.Access {
	if f == (transport.Files{}) {
		return given
	}
	var a client.Access
	if given != nil {
		a = *given
	}
	a.Authority, a.TLSAuthority = "", cmp.Or(f.Authority, a.TLSAuthority)
	if f.Certificate != "" {
		a.TLSCertificate, a.TLSKey = f.Certificate, f.Key
	}
	return &a
}

// readJoin replaces a --join @FILE by what the file holds: arguments and environments of processes are no place for secrets.
func (a *app) readJoin(cmd *cobra.Command, join *string) error {
	file, ok := strings.CutPrefix(*join, "@")
	if !ok {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return usagef(cmd, "--join: %v", err)
	}
	if *join = strings.TrimSpace(string(text)); *join == "" {
		return usagef(cmd, "--join: %s is empty", file)
	}
	return nil
}
