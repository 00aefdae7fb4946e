package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

const (
	// EventsPath is the path of the stream of events.
	EventsPath = "/v1/events"

	// eventsQuietMax bounds the silence of the stream: a leader sends a heartbeat every 10 s.
	eventsQuietMax = 30 * time.Second
	// eventBytesMax bounds one line of the stream.
	eventBytesMax = 1 << 20
)

// Events returns the events after a position, oldest first, and then new ones; a nil position is the present. The sequence
// continues until ctx ends or the caller ends it. After a broken connection it continues after the last event with any leader
// that answers, for up to Options.WaitPatience. The sequence ends after its first error; an *api.Problem with status 410 means
// that the events after the position are no longer stored.
func (c *Client) Events(ctx context.Context, after *api.Position) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		q := get(EventsPath)
		q.quietMax = eventsQuietMax
		e := events{yield: yield, q: &q}
		if after != nil {
			e.at(*after)
		}
		if err := c.stream(ctx, &q, "events", e.read); err != nil {
			yield(api.Event{}, err)
		}
	}
}

// events reads the stream through any number of connections.
type events struct {
	yield func(api.Event, error) bool
	q     *request // for the events after the last one
	known bool     // last is set, by the caller or by the first line of the first connection
	last  api.Position
}

// at sets the position.
func (e *events) at(p api.Position) {
	e.known, e.last = true, p
	e.q.lastSeen = fmt.Sprintf("%d-%d", p.Index, p.Seq)
}

// isNew reports whether p comes after the last event.
func (e *events) isNew(p api.Position) bool {
	return !e.known || p.Index > e.last.Index || p.Index == e.last.Index && p.Seq > e.last.Seq
}

// read implements reader. It reads server-sent events: lines "field: value", and an empty line after each event. An event
// without it is incomplete and ignored.
func (e *events) read(body io.Reader) (moved bool, err error) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, eventBytesMax)
	var id string
	var data []byte
	for lines.Scan() {
		field, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			id = string(value)
		case "data":
			data = append(data, value...)
		}
		if len(lines.Bytes()) > 0 || id == "" {
			continue
		}
		position, err := parsePosition(id)
		if err != nil {
			return moved, err
		}
		if e.isNew(position) {
			moved = true
			e.at(position)
			if len(data) > 0 { // else it is the start of the stream
				var event api.Event
				if err := json.Unmarshal(data, &event); err != nil {
					return moved, fmt.Errorf("event %s: not the event of a Bridge Four leader: %w", id, err)
				}
				if !e.yield(event, nil) {
					return moved, errEnough
				}
			}
		}
		id, data = "", data[:0]
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF // the stream has no end
	}
	return moved, fmt.Errorf("%w: %w", errBroken, err)
}

// parsePosition reads the id of an event: INDEX-SEQ.
func parsePosition(id string) (api.Position, error) {
	index, seq, _ := strings.Cut(id, "-")
	i, err := strconv.ParseUint(index, 10, 64)
	s, seqErr := strconv.ParseUint(seq, 10, 32)
	if err != nil || seqErr != nil {
		return api.Position{}, fmt.Errorf("invalid event id %q: apparently not from a Bridge Four leader", id)
	}
	return api.Position{Index: i, Seq: uint32(s)}, nil
}
