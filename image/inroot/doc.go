// Package inroot opens what lies inside a container's root file system, which
// is hostile: its links may point anywhere, its /etc/passwd may be a FIFO or
// without end.
//
// It owns that every lookup ends inside the root (openat2 with
// RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS: a link or ".." that leads out
// ends at the root), that nothing waits, and that what is read is bounded. It
// refuses to know what the files mean.
package inroot
