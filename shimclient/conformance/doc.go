// Package conformance holds one suite of tests for everything that satisfies
// [shimclient.Tasks]: the fake shim and the real one must give the same
// answers, or what is proved with the fake is a fiction.
//
// A maker hands the suite a [World], in which shims are launched, containers
// described, and processes seen and killed from outside, as the kernel and a
// hostile operator do.
package conformance
