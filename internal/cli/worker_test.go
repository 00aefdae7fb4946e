package cli

import (
	"crypto/x509/pkix"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/transport/outsidetest"
)

// TestWorkerEncryption: when a worker's listener needs a certificate, and when not.
func TestWorkerEncryption(t *testing.T) {
	authority, err := outsidetest.New()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := authority.Issue(pkix.Name{CommonName: "w1"}, []string{"w1.example.com"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var files transport.Files
	if files.Certificate, files.Key, err = outsidetest.Write(t.TempDir(), "w1", certificate); err != nil {
		t.Fatal(err)
	}
	for _, f := range []workerFlags{{listen: "127.0.0.1:0"}, {listen: "0.0.0.0:0", insecure: true}, {listen: "0.0.0.0:0", insecure: true, outside: files}} {
		if e, err := f.encryption(&cobra.Command{}, nil); e != nil || err != nil {
			t.Errorf("%+v: %v, %v, want no encryption", f, e, err)
		}
	}
	if e, err := (&workerFlags{listen: "0.0.0.0:0", outside: files}).encryption(&cobra.Command{}, nil); e == nil || err != nil {
		t.Errorf("a port that is open to others, with a certificate: %v, %v, want encryption", e, err)
	}
	if _, err := (&workerFlags{listen: "0.0.0.0:0"}).encryption(&cobra.Command{}, nil); err == nil || !strings.Contains(err.Error(), "--join STRING") {
		t.Errorf("a port that is open to others, without a certificate: %v, want the ways to have one", err)
	}
}
