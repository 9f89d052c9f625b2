// Package sim runs the hands (container, sandbox, reconcile, store, upkeep), the
// very code that the daemon runs, against a machine that is made up: kernel,
// shims, CNI, images, disk and clock. All of it misbehaves as a seed says, the
// daemon is killed and started again, a client asks for random things, and the
// invariants of the lifecycle are checked after every step.
//
// It owns nothing but tests. A seed that fails is run again with
//
//	go test ./sandbox/sim -run TestSeed -seed=N -v
//
// and many are tried with -run TestSeeds -seeds=N. Time is a testing/synctest
// bubble's; every effect takes a time of its own, drawn from the seed, so that
// the order of all things follows from it.
package sim
