package access

import (
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc/peer"

	"github.com/bridgefour/bridgefour/api"
)

// knownConn is a connection whose peer is known.
type knownConn struct {
	net.Conn
	peer Peer
}

func (c knownConn) Peer() Peer { return c.peer }

func TestPeers(t *testing.T) {
	p := NewPolicy(Options{})
	for name, c := range map[string]struct {
		peer Peer
		want Principal
	}{
		"local":  {Peer{Address: "127.0.0.1:9", Local: true}, p.local},
		"remote": {Peer{Address: "10.0.0.9:9"}, Principal{}},
	} {
		conn := knownConn{peer: c.peer}
		_, info, err := connCredentials{}.ServerHandshake(conn)
		if err != nil {
			t.Fatal(err)
		}
		request := request(t, "localhost")
		r, err := p.Accept(request.WithContext(ConnContext(request.Context(), conn)), "GET /v1/jobs")
		c.want.Address, c.want.Action = c.peer.Address, "GET /"
		if got := From(r.Context()); got != c.want || (err == nil) != c.peer.Local || err != nil && !api.IsStatus(err, http.StatusUnauthorized) {
			t.Errorf("%s: request of %+v, error %v, want %+v", name, got, err, c.want)
		}
		ctx, err := p.acceptCall(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info}), "/bridgefour.wire.v1.Leader/Session")
		if c.want.Action = "/bridgefour.wire.v1.Leader/Session"; !c.peer.Local {
			c.want = Principal{}
		}
		if got := From(ctx); got != c.want || (err == nil) != c.peer.Local {
			t.Errorf("%s: call of %+v, error %v, want %+v", name, got, err, c.want)
		}
		if _, err := p.Accept(request, "GET /healthz"); err != nil {
			t.Errorf("%s: public route: %v", name, err)
		}
	}
}
