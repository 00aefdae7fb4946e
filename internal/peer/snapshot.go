package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
)

const (
	chunkBytes         = 256 << 10        // of a snapshot, in one message
	snapshotBackOffMax = 10 * time.Second // between tries to send one
	// snapshotSilenceMax is longer than that of a lane: nothing depends on detecting a slow link soon, and an interrupted snapshot
	// is sent again from the beginning.
	snapshotSilenceMax = 10 * time.Second
)

// putSnapshot queues m behind the snapshot that is being sent, in place of one that is queued already. It must not be called concurrently.
func (l *link) putSnapshot(m *raftpb.Message) {
	select {
	case <-l.snapshots:
	default:
	}
	l.snapshots <- m
}

// sendSnapshots sends snapshots, one at a time, and reports the outcome to the replica.
func (l *link) sendSnapshots(ctx context.Context, r Replica) {
	var wait backOff
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-l.snapshots:
			index := m.GetSnapshot().GetMetadata().GetIndex()
			bytes, err := l.sendSnapshot(ctx, r, m)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				l.t.log.WarnContext(ctx, "snapshot not sent to a leader", "peer", l.id, "index", index, "bytes", bytes, "error", plain(err))
				// Delay the report: raft retries with the next heartbeat, which would be a hot loop of megabytes.
				wait.wait(ctx, snapshotBackOffMax, nil)
			default:
				wait.reset()
				l.t.log.InfoContext(ctx, "snapshot sent to a leader", "peer", l.id, "index", index, "bytes", bytes)
			}
			r.ReportSnapshot(l.id, err == nil)
		}
	}
}

func (l *link) sendSnapshot(ctx context.Context, r Replica, m *raftpb.Message) (bytes int64, err error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		return 0, fmt.Errorf("encode its message: %w", err)
	}
	l.t.mu.Lock()
	addresses := l.t.members.addresses(l.id)
	l.t.mu.Unlock()
	if len(addresses) == 0 {
		return 0, errors.New("its address is unknown")
	}
	body, err := r.OpenSnapshot(m)
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }() // it was only read
	open := func(ctx context.Context, c peerpb.PeerClient) (outgoing[peerpb.Chunk], error) { return c.Snapshot(ctx) }
	first := &peerpb.Chunk{Handshake: l.t.handshake(l.id, peerpb.Lane_LANE_SNAPSHOT), Message: raw}
	for _, address := range addresses {
		err = openStream(ctx, l.t, l.id, address, snapshotSilenceMax, snapshotSilenceMax, open, first, func(ctx context.Context, stream outgoing[peerpb.Chunk]) error {
			bytes, err = sendBody(ctx, stream, body)
			return err
		})
		if errors.Is(err, errEnded) {
			return bytes, nil
		}
		if bytes > 0 {
			break // the body has been read
		}
	}
	return bytes, err
}

// sendBody sends body and waits until the other side has processed it, which is errEnded.
func sendBody(ctx context.Context, stream outgoing[peerpb.Chunk], body io.Reader) (bytes int64, err error) {
	for {
		chunk := make([]byte, chunkBytes) // not reused: the stream may still hold it
		n, err := io.ReadFull(body, chunk)
		if n > 0 {
			bytes += int64(n)
			if sendErr := stream.Send(&peerpb.Chunk{Data: chunk[:n]}); sendErr != nil {
				<-ctx.Done() // the receiving side gets the reason
				return bytes, context.Cause(ctx)
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			if err := stream.CloseSend(); err != nil {
				return bytes, err
			}
			<-ctx.Done()
			return bytes, context.Cause(ctx)
		case err != nil:
			return bytes, fmt.Errorf("read it: %w", err)
		}
	}
}
