// Package conformance holds one suite of experiments for everything that satisfies
// [shimclient.Tasks] and [shimclient.Shims]: the fake shim and the real one must
// give the same answers, or what is proved with the fake is a fiction.
//
// A maker hands the suite a [World], in which shims are launched, containers
// described, and processes seen, stopped, frozen and killed from outside, as the
// kernel and a hostile operator do.
//
// What the fake can do and no experiment can hold, because a real machine cannot be
// made to do it on demand:
//   - World.Reboot: the experiment ends every process and wipes what would be on
//     tmpfs, and holds what is left then: nobody to adopt, to find or to open, and
//     the same names work anew. The kernel goes on, so that pids and start times are
//     not given again; the fake gives the very same ones.
//   - World.Recycle: pids are given away when the kernel likes.
//   - World.ForgetTask of a container that runs: a shim never knew such a one. What
//     is held is a container in its runtime's hands of which the create failed.
//   - Fault.Late and Fault.Outlives at any moment: what is held are the two ways in
//     which a call outlives its caller (it lies in the socket of a stopped shim; it
//     is under way and the connection stays), and that the end of the connection
//     calls off what the runtime has not done yet.
//
// Of the measured experiments that the shim contract lists, these are not here,
// because the fake has no such thing: an event sink that hangs (crid's never does:
// shimclient's own tests), fifos without a reader (container/logs, e2e), OOM (e2e).
package conformance
