// Command bridgefour runs one computation over many inputs, on one machine or a thousand.
package main

import (
	"os"

	"github.com/bridgefour/bridgefour/internal/cli"
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	os.Exit(cli.Main(version))
}
