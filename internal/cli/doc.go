// Package cli is the command line of Bridge Four. The servers that it starts are in package server.
//
// A command is one function that makes a *cobra.Command. What it needs of the process (streams, environment) comes from
// app, its requests to a cluster go through package client, also where the cluster is embedded in this very process: run
// meets its leader through a socket on the loopback interface, as any other client does.
//
//	follower  watches a job to its end, with progress
//	runDir    what run --resume needs of a run that did not end
package cli
