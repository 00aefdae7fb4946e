// Package server wires the servers together: what runs in the process of a leader, of a worker, and of a whole cluster that one command starts.
// It knows nothing of the command line.
//
//	OpenLeader    a leader process: log, leader, HTTP and worker traffic on one port
//	OpenWorker    a worker with its HTTP listener
//	OpenEmbedded  a leader and its workers in this process, for run and dev
package server
