// Package story has the verbs in which the end-to-end tests are written: a Story is one test's view of a daemon, a Pod and a Container
// are what it makes there. Most tests of a package share one daemon (Begin), those that hurt it have their own (Alone).
//
// It owns the end of every test: all pods go, the census must be as it was, and `crid check` must find nothing.
//
// It refuses to know what is being tested.
package story
