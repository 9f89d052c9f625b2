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
// and many are tried with -run TestSeeds -seeds=N (make sim-long). One that fails
// is shrunk: clients, containers, time, kinds of faults, single accidents and
// single bad calls are left out as long as the same invariant breaks, and the
// flags that play what is left are printed.
//
// Time is a testing/synctest bubble's; every effect takes a time of its own, drawn
// from dice that belong to the thing, so that the order of all things follows from
// the seed. What a wall clock says is on record only: it is set by changing the
// records while crid is down. A reboot leaves records, leases and layers, and a
// power loss not all that was written last.
//
// Mutants (make mutants) are known bugs put back into the code, M1 to M15 those of
// other runtimes; each has to be caught by the invariant that is meant for it.
package sim
