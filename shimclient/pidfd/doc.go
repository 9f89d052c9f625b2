// Package pidfd is the kernel's word on processes: who a pid is, whether it
// still lives, how it ended, and a way to signal it that can never hit
// somebody else.
//
// A pid alone names nobody, for the kernel gives it away again. What a record
// keeps is a [Process]: the pid together with its start time. What a running
// daemon keeps is a [Handle], an open pidfd, which stays with the one process
// for ever. One [Watcher] tells about the end of any number of handles with a
// single goroutine and without a poll.
//
// The package refuses to know what a process is for: no containers, no shims.
package pidfd
