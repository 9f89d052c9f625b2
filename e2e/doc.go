// Package e2e holds the end-to-end tests of crid: the real daemon on a real runc, shim and CNI plugins, through its CRI socket and
// crictl, with images of the project's own. Every test ends with a census: nothing may be left. In core, confine and pull the tests share a
// daemon (package story); in restart and here each has its own.
//
//	make e2e                      all
//	make e2e RUN=TestRestart      some
//	CRID_E2E_RUNTIME=containerd   against the peer, to see whether a test is right
package e2e
