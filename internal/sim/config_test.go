package sim

import (
	"fmt"
	"time"
)

// Config describes a world. It and the code determine everything that happens.
type Config struct {
	Seed    uint64
	Leaders int
	Workers int
	Slots   int // of each worker; 0: random
	Clients int
	Lockers int  // clients that hold named locks
	Jobs    int  // submitted by all clients together
	Tasks   int  // of one job, at most
	Plain   bool // every job has that many tasks, without output
	// Mean is the mean duration of an attempt, roughly; jobs differ.
	Mean time.Duration
	Slow int           // attempts on the first worker take so many times as long; 0: once
	Span time.Duration // of faults and requests
	Pace time.Duration // from one fault to the next, on average
	// SnapshotEvery is how many entries a leader applies between two snapshots.
	SnapshotEvery uint64
	Kinds         []FaultKind
	Failing       int // attempts in a thousand that fail
	Plant         Plant
	StepEvery     time.Duration // how long a leader collects inputs for a step; 0: 50 µs
}

// Plant is a bug that is planted in a world, to show that it is found.
type Plant uint8

// Bugs of disks, of the network and of the drivers, and bugs of the leader's core (see leaderBug).
const (
	NoBug        Plant = iota
	AckUnsynced        // disks acknowledge writes that are not durable
	ForgedQuorum       // followers acknowledge entries that they do not have
	EarlyAck           // a stop or a retry is acknowledged before the log has it
	LazyRead           // a strong read is answered from memory
	StaleLease         // a worker that was given up is still listened to, and its completion of a void lease goes into the log
	AdoptOld           // a worker goes on with a lease that is fenced, or whose task was leased again since
	ForgetDone         // a term starts without the last completions
	ReuseSlot          // a worker runs the next attempt of a slot although processes of the last one live
	LargeEntry         // a leader proposes an entry that its messages cannot carry
	TrustInput         // a worker reads whatever a file is
	TrustReport        // a report on a lease is taken for that of its holder, whoever sends it
	DropRenewal        // a renewal of a lock is answered, and does not move the time at which it expires
)

// Draw returns the world of a seed.
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
	c.Kinds, c.Lockers = someFaults(rng), drawLockers(seed)
	return c
}

// Faults returns the faults that the seed has for this world.
func (c *Config) Faults() []Fault { return plan(stream(c.Seed, "faults", 0), c, c.Kinds) }

// raises is when the feature level is raised: in some worlds most jobs are of level 0, in others of the latest one.
func (c *Config) raises() time.Duration {
	if c.Seed%3 == 0 {
		return c.Span / 2
	}
	return 0
}

// unled is how long attempts of jobs with named locks run without a leader: in some worlds less than most faults take.
func (c *Config) unled() time.Duration {
	return []time.Duration{0, 2 * time.Second, 5 * time.Second}[c.Seed/3%3]
}

func (c *Config) String() string {
	return fmt.Sprintf("seed %d: %d leaders, %d workers, %d clients, %d lockers, %d jobs of up to %d tasks of about %v, %v with a fault every %v of %v",
		c.Seed, c.Leaders, c.Workers, c.Clients, c.Lockers, c.Jobs, c.Tasks, c.Mean, c.Span, c.Pace, c.Kinds)
}
