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

	// eventsQuietMax is for how long the stream may bring nothing: a leader says every 10 s that it goes on.
	eventsQuietMax = 30 * time.Second
	// eventBytesMax bounds one line of the stream.
	eventBytesMax = 1 << 20
)

// Events are the events after a position, oldest first, and then those to come; nil stands for now. The sequence goes on until
// ctx is done or the caller leaves it. A broken connection is taken up again after the last event, with whichever leader
// answers, for up to Options.WaitPatience. The sequence ends after its first error; an *api.Problem with status 410 means that
// the events after the position are no longer kept.
func (c *Client) Events(ctx context.Context, after *api.Position) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		q := get(EventsPath)
		q.quietMax = eventsQuietMax
		e := events{yield: yield, q: &q}
		if after != nil {
			e.at(*after)
		}
		if err := c.endure(ctx, &q, "events", e.read); err != nil {
			yield(api.Event{}, err)
		}
	}
}

// events reads the stream through any number of connections.
type events struct {
	yield func(api.Event, error) bool
	q     *request // asks for what comes after the last event
	known bool     // the position is: it is set from the first line of the first connection on
	last  api.Position
}

// at notes a position.
func (e *events) at(p api.Position) {
	e.known, e.last = true, p
	e.q.lastSeen = fmt.Sprintf("%d-%d", p.Index, p.Seq)
}

// isNew reports whether p comes after the last event.
func (e *events) isNew(p api.Position) bool {
	return !e.known || p.Index > e.last.Index || p.Index == e.last.Index && p.Seq > e.last.Seq
}

// read implements reader. It reads server-sent events: lines "field: value", an empty line after each event. An event that was
// not ended by it has not come.
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
			if len(data) > 0 { // without: where the stream begins
				var event api.Event
				if err := json.Unmarshal(data, &event); err != nil {
					return moved, fmt.Errorf("event %s is not what a Bridge Four leader sends: %w", id, err)
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
		err = io.ErrUnexpectedEOF // events never end
	}
	return moved, fmt.Errorf("%w: %w", errBroken, err)
}

// parsePosition reads the id of an event: INDEX-SEQ.
func parsePosition(id string) (api.Position, error) {
	index, seq, _ := strings.Cut(id, "-")
	i, err := strconv.ParseUint(index, 10, 64)
	s, seqErr := strconv.ParseUint(seq, 10, 32)
	if err != nil || seqErr != nil {
		return api.Position{}, fmt.Errorf("%q is not the id of an event; what answers is no Bridge Four leader, it seems", id)
	}
	return api.Position{Index: i, Seq: uint32(s)}, nil
}
