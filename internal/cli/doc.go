// Package cli is the command line of Bridge Four, and the only place where its parts are wired together.
//
// A command is one function that makes a *cobra.Command. What it needs of the process (streams, environment) comes from
// app, its requests to a cluster go through package client, also where the cluster is embedded in this very process: run
// meets its leader through a socket on the loopback interface, as any other client does.
//
//	node      a leader process: log, leader, HTTP and worker traffic on one port
//	spren     a worker with its HTTP listener
//	embedded  a node and its sprens in this process, for run and dev
//	follower  watches a job to its end, with progress
//	runDir    what run --resume needs of a run that did not end
package cli
