package api

import "time"

// Modes of a lock. Exclusive conflicts with both, shared with exclusive.
const (
	LockExclusive = "exclusive"
	LockShared    = "shared"
)

// Bounds of locks.
const (
	LockNameBytesMax   = 1024
	LockNamesMax       = 64 // of a request
	LockHolderBytesMax = 256
	LockNoteBytesMax   = 256
	LockMaxMax         = 1 << 20
	LockOperationsMax  = 1000 // of a batch
	LockListMax        = 1000 // locks of a page

	LockTTLMin     = time.Second
	LockTTLMax     = time.Hour
	LockTTLDefault = 30 * time.Second
	LockWaitMax    = 7 * 24 * time.Hour
	// LockCallMax is how long one call waits at most. A request that wants to wait longer is sent again.
	LockCallMax = 20 * time.Second
)

// LockName is a name that a request locks: components separated by slashes. A name conflicts with itself, with the names above it (a and a/b), and
// with those below it.
type LockName struct {
	Name string `json:"name" minLength:"1" maxLength:"1024" example:"licence/matlab"`
	Mode string `json:"mode,omitempty" enum:"exclusive,shared" default:"exclusive"`
}

// LockTerms are how names are locked: the body of PUT /v1/locks/{name}.
type LockTerms struct {
	Holder     string `json:"holder" doc:"Chosen by the client, unique among the locks of the user: the same holder with the same names again renews what it holds, or keeps its place in the queue" minLength:"1" maxLength:"256" example:"nightly-export@db1"`
	Max        uint32 `json:"max,omitempty" doc:"It waits while so many or more earlier requests conflict with it; 0: 1. All holders of a pool of N give N" maximum:"1048576"`
	TTLMillis  uint64 `json:"ttl_ms,omitempty" doc:"The lock is lost when it has not been renewed for so long; 0: 30000. That of the first request counts" maximum:"3600000"`
	WaitMillis uint64 `json:"wait_ms,omitempty" doc:"How long it may wait; 0: it is refused at once. A call takes at most 20 s: after that, the answer is a 409 with waiting set, and the request keeps its place if it is sent again within the TTL, with what is left of the wait" maximum:"604800000"`
	Note       string `json:"note,omitempty" doc:"Shown in lists" maxLength:"256"`
	Fence      uint64 `json:"fence,omitempty" doc:"Only renew the lock that was granted with this number. If it is lost, the answer is a 409, and nothing is acquired"`
}

// LockBody is the body of PUT /v1/locks/{name}.
type LockBody struct {
	LockTerms

	Mode string `json:"mode,omitempty" enum:"exclusive,shared" default:"exclusive"`
}

// LockRequest acquires names, all of them or none, or renews them.
type LockRequest struct {
	LockTerms

	Names []LockName `json:"names" minItems:"1" maxItems:"64"`
}

// LockGrant says that a request holds its names.
type LockGrant struct {
	Fence           uint64 `json:"fence" doc:"Fencing number: the log position of the grant. It only grows, across leaders and restores"`
	ExpiresInMillis uint64 `json:"expires_in_ms" doc:"Unless it is renewed. Count from when the request was sent"`
}

// LockConflict is why a request does not hold its names. It is part of the 409.
type LockConflict struct {
	Name    string       `json:"name,omitempty" doc:"Of the request: one that is not free"`
	Holders []LockHolder `json:"holders,omitempty" doc:"The earlier requests that it waits for, the first ones, held before waiting"`
	Place   uint64       `json:"place,omitempty" doc:"In the queue, from 1: so many earlier requests, held or waiting, conflict with it"`
	Waiting bool         `json:"waiting,omitempty" doc:"It keeps its place if it is sent again within the TTL. Otherwise it is gone"`
	Lost    bool         `json:"lost,omitempty" doc:"The lock with the fence of the request is no longer held"`
}

// LockHolder is a request in lists.
type LockHolder struct {
	ID     uint64 `json:"id" doc:"Order of the requests"`
	Job    uint64 `json:"job,omitempty"`
	Ended  bool   `json:"ended,omitempty" doc:"The job has ended, and attempts of it may still run"`
	Holder string `json:"holder,omitempty"`
	User   string `json:"user,omitempty"`
	Mode   string `json:"mode" enum:"exclusive,shared"`
	Max    uint32 `json:"max,omitempty"`
	Note   string `json:"note,omitempty"`
	Fence  uint64 `json:"fence,omitempty" doc:"0: it waits"`
	// Since is when it was granted, or began to wait.
	Since           time.Time `json:"since"`
	ExpiresInMillis uint64    `json:"expires_in_ms,omitempty" doc:"Of a client's lock, as far as the leader knows"`
	Place           uint64    `json:"place,omitempty" doc:"Of one that waits: so many earlier requests conflict with it"`
	Name            string    `json:"name,omitempty" doc:"What it locks, if that is not the name that is asked about"`
	// Workers is where attempts may run of a job that has ended: the first LockWorkersMax. The leader knows them.
	Workers     []LockWorker `json:"workers,omitempty" doc:"Where attempts may run of a job that has ended"`
	MoreWorkers uint64       `json:"more_workers,omitempty" doc:"So many are not listed"`
}

// LockWorkersMax bounds LockHolder.Workers.
const LockWorkersMax = 5

// The statuses of a LockWorker.
const (
	LockWorkerStopping = "stopping" // it is connected, and stops attempts
	LockWorkerLost     = "lost"     // it is not connected: what runs there is not known
	LockWorkerRemoved  = "removed"  // as it ran attempts: they are being stopped
)

// LockWorker is a worker that the locks of a job wait for.
type LockWorker struct {
	Worker     uint64 `json:"worker"`
	Status     string `json:"status" enum:"stopping,lost,removed"`
	LeftMillis uint64 `json:"left_ms,omitempty" doc:"Of one that is lost or removed: for how long it is waited for at most"`
}

// Lock is a name that is held or waited for.
type Lock struct {
	Name    string       `json:"name"`
	Data    bool         `json:"data,omitempty" doc:"A location of inputs or outputs of jobs, instead of a name that users have chosen"`
	Holders []LockHolder `json:"holders,omitempty"`
	Waiting []LockHolder `json:"waiting,omitempty" doc:"In their order"`
}

// LockQuery selects locks.
type LockQuery struct {
	Name   string // only this one, of those that users have chosen, with the requests for names above and below it; empty: all
	Limit  int    // up to LockListMax; 0: that
	Cursor string // LockList.Next of the page before
}

// LockList is a page of locks: data, then the others, by name.
type LockList struct {
	Locks []Lock `json:"locks"`
	Next  string `json:"next,omitempty" doc:"Cursor of the next page"`
}

// Operations of a batch.
const (
	LockAcquire = "acquire"
	LockRelease = "release"
)

// LockOperation is one operation of a batch. A release needs the holder and the names.
type LockOperation struct {
	Op string `json:"op" enum:"acquire,release"`
	LockRequest
}

// LockBatch is the body of POST /v1/locks: operations, which are carried out one after the other, or, without any, one request.
type LockBatch struct {
	Operations []LockOperation `json:"operations,omitempty" maxItems:"1000"`

	LockRequest
}

// LockResult is the result of an operation: a grant, or a problem. A release that succeeds, or that finds nothing, has neither.
type LockResult struct {
	LockGrant

	Problem *Problem `json:"problem,omitempty"`
}

// LockResults are the results of a batch, one for each operation.
type LockResults struct {
	Results []LockResult `json:"results"`
}

// JobLock is what a job waits for: one of its names that is not free.
type JobLock struct {
	LockName

	Data    bool         `json:"data,omitempty"`
	Place   uint64       `json:"place" doc:"So many earlier requests conflict with it"`
	Holders []LockHolder `json:"holders" doc:"The first ones of these, held before waiting"`
}
