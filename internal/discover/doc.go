// Package discover finds leaders: from a list, by DNS, or by asking the network (multicast DNS, RFC 6762, service
// _bridgefour._tcp). It gives addresses worth a try and nothing more: whether a leader is the right one is checked when a worker
// registers with it, because whoever is on the network can answer.
//
// The question is asked by hand, on every interface: the library that answers it ([Announce]) keeps one address an answer,
// and fails on a network without a default route, when it asks.
package discover
