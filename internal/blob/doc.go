// Package blob is the interface to stores of files and objects, [Store], and its implementation for file systems.
//
// Names are locations: see [Location]. Folders exist implicitly, where names share a prefix; only a file system has them as
// entities, so nothing here needs an empty folder.
//
// An output becomes visible in three steps, in any store: it is written under a private name (Create, then Prepare), made
// durable (Sync, many at once), and published under its final name by Publish, which is atomic and idempotent. A file system
// renames; an object store completes an upload. Callers assume no rename other than Publish.
//
// A file is durable after Commit, or after Prepare and Sync. A name is durably created by Publish, or removed, after SyncDir of
// its folder.
package blob
