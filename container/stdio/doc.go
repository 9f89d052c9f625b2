// Package stdio carries bytes between a client and a process behind a shim: exec, attach and the standard input of
// containers.
//
// It owns the named pipes of an exec (made, opened, drained, removed), the write end of a container's stdin, and the rule
// when output counts as finished. It knows the shim only as the small interfaces Execer and Task, and the container's
// output only as something that can be subscribed to.
//
// It refuses to know which process to run (the caller brings the OCI process), whether the container runs, who the client
// is, and how much output the client wants to keep (see Capped).
//
// Three promises, each with tests:
//
//   - Nothing outlives its call by more than a bounded time: a background child that keeps the pipe open, a client that
//     never reads and a client that vanished cost neither a goroutine nor a file descriptor.
//   - An exec is always deleted from the shim, by work that is detached from the caller's context.
//   - Output that was written before the process ended is delivered, however slowly the client reads.
package stdio
