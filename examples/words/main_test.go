package main

import (
	"testing"

	"github.com/bridgefour/bridgefour/examples/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, "words", main) }

func TestScript(t *testing.T) { exampletest.Run(t) }
