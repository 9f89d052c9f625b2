// Package trace writes steps of the law down, and checks what was written: each
// step against the law itself, and each state against the one before.
//
// It owns the names of events and the form of a line. It refuses to know who
// writes the lines and where to.
package trace
