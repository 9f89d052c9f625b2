// Package lifecycle is the law: what state a container and a pod are in, which
// requests they take, what they still owe the world, and what is announced.
//
// It is three total, pure functions for each of the two:
//
//	Step(state, event)   the next state; a request may be refused, a sighting never is
//	Owes(state)          the work that must be kept in flight until the world agrees
//	Announce(old, new)   the CRI events, as a difference
//
// Effects are derived from the state and never emitted by a transition, so an
// action that got lost is only late, and recovery after a crash is Owes of the
// record once the world has been looked at.
//
// It uses the standard library's pure parts only: no I/O, no clock, no
// goroutine, no lock. Times are numbers that events bring along. It refuses to
// know who acts, how, and over which protocol.
package lifecycle
