// Package watch holds what the fault tests of host, net, api and registry share: how much of a test is run, a witness that tells whether
// anybody who is not concerned by a fault is hurt by it, and settings of a daemon that the harness does not make.
//
// It refuses to know any fault.
package watch
