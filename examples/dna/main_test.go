package main

import (
	"testing"

	"github.com/bridgefour/bridgefour/examples/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, "dna", main) }

func TestScript(t *testing.T) { exampletest.Run(t) }
