// Package discover finds leaders: from a list, by DNS, or by asking the network (multicast DNS, RFC 6762, service
// _bridgefour._tcp). It returns candidate addresses only: whether a leader is the right one is checked when a worker
// registers with it, because anything on the network can answer.
//
// Queries are sent without the library that answers them ([Announce]), on every interface: the library keeps one address per
// answer, and its queries fail on a network without a default route.
package discover
