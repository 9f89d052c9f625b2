// Package memory keeps the daemon's memory small: it gives back what a burst has left, and has garbage collected harder beyond half of what
// crid's own cgroup may use.
//
// It owns when to collect. It refuses to know what the memory is for.
package memory
