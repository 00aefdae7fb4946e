// Package blob holds files and objects behind one type, [Store], so that the rest of the engine knows no file system.
//
// A name is a full path with "/" between its parts and may hold any bytes. Folders exist where names share a prefix; only a
// file system has them as things of their own, so nothing here needs a folder that holds no file.
//
// How an output becomes visible, whatever the store: it is written under a private name (Create, then Prepare), made durable
// (Sync, many at once), and given its public name by Publish, which is atomic and can be repeated. A file system does that with
// a rename in one folder tree; an object store by completing an upload. Callers assume no rename beyond Publish.
//
// What is durable when: a file after Commit, or Prepare and Sync; a name given by Publish or taken by Remove after SyncDir of its
// folder.
package blob
