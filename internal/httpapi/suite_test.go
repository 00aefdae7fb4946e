package httpapi_test

import (
	"testing"

	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
	"github.com/bridgefour/bridgefour/internal/httpapi/leadertest"
)

func TestFake(t *testing.T) {
	leadertest.Suite(t, func(*testing.T) httpapi.Leader { return httpapitest.NewFake() })
}
