// Package fake is a world of shims and processes without either: what
// [shimclient.Tasks] promises, in memory, with the misbehaviour that was
// measured of the real shims. The conformance suite runs against both.
//
// A [World] is the kernel: it knows which pids live, delivers signals, and can
// give a pid away again. A [Shim] in it is a connection to a fake shim process,
// which can be stopped and killed like any other. Calls can be delayed, hung,
// and failed before or after their effect ([World.SetFault]); runtime commands
// can hang ([World.Jam]); processes can refuse to die ([Process.Stick]).
//
// Time is the time package's, so that it all works in a testing/synctest
// bubble. Nothing here starts a goroutine but [World.Watch], for its callback, and a
// late call.
package fake
