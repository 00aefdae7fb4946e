package sim

import (
	"fmt"
	"time"
)

// Config describes a world. Everything that happens in it follows from this and the code.
type Config struct {
	Seed    uint64
	Leaders int
	Workers int
	Slots   int // of each worker; 0: drawn
	Clients int
	Jobs    int  // submitted by all clients together
	Tasks   int  // of one job, at most
	Plain   bool // every job has that many, which leave no files
	// Mean is how long an attempt takes, roughly; jobs differ.
	Mean time.Duration
	Span time.Duration // faults happen, and clients ask for things, until then
	Pace time.Duration // from one fault to the next, on average
	// SnapshotEvery entries each leader saves its state and drops its log.
	SnapshotEvery uint64
	Kinds         []FaultKind
	Failing       int // attempts in a thousand that fail
	Plant         Plant
	StepEvery     time.Duration // a leader gathers what comes for so long before it acts; 0: 50 µs
}

// Plant is a bug that a world is built with, to show that it is found.
type Plant uint8

// Bugs of disks, of the network and of the driver, and bugs of the leader's core (see leaderBug).
const (
	NoBug        Plant = iota
	AckUnsynced        // disks say that a write is durable when it is not
	ForgedQuorum       // followers' answers say that they have entries that they have not
	EarlyAck           // a stop or a retry is acknowledged before the log has it
	LazyRead           // a strong read is answered from memory
	StaleLease         // a worker that was given up is still listened to, and its completion of a void lease goes into the log
	AdoptOld           // a worker goes on with a lease that is fenced, or whose task was leased again since
	ForgetDone         // a term starts without the last completions
)

// Draw gives the world of a seed.
func Draw(seed uint64) Config {
	rng := stream(seed, "config", 0)
	c := Config{
		Seed:    seed,
		Leaders: []int{1, 3, 3, 3, 3, 5}[rng.IntN(6)],
		Workers: []int{1, 2, 3, 5, 8, 20}[rng.IntN(6)],
		Clients: 1 + rng.IntN(4),
		Jobs:    3 + rng.IntN(12),
		Tasks:   []int{3, 30, 300}[rng.IntN(3)],
		Mean:    []time.Duration{500 * time.Microsecond, 20 * time.Millisecond, time.Second}[rng.IntN(3)],
		Span:    between(rng, 10*time.Second, 40*time.Second),
		Pace:    []time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second}[rng.IntN(3)],

		SnapshotEvery: []uint64{5, 50, 1000}[rng.IntN(3)],
		Failing:       []int{0, 0, 20, 200}[rng.IntN(4)],
	}
	c.Kinds = someFaults(rng)
	return c
}

// Faults are those that the seed has for this world.
func (c *Config) Faults() []Fault { return plan(stream(c.Seed, "faults", 0), c, c.Kinds) }

func (c *Config) String() string {
	return fmt.Sprintf("seed %d: %d leaders, %d workers, %d clients, %d jobs of up to %d tasks of about %v, %v with a fault every %v of %v",
		c.Seed, c.Leaders, c.Workers, c.Clients, c.Jobs, c.Tasks, c.Mean, c.Span, c.Pace, c.Kinds)
}
