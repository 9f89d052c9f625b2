// Package logs writes containers' output as the kubelet reads it: one file for
// each container, one entry for each line, in the format of CRI's logging
// design (`TIME STREAM TAG TEXT`, tag P for a part of a line and F for its end).
//
// It owns the way from a fifo to the file, rotation by reopening, what happens
// when the disk is full, and the clients that look on (attach). Four promises:
//
//   - Entries are whole. Both streams go to the file in writes that hold complete
//     entries only; an entry torn by a full disk is taken back.
//   - The container is not held up for ever. What cannot be written is dropped,
//     counted, and told by an entry of its own once writing works again; a client
//     that does not read is cut off after a while.
//   - An idle stream costs a goroutine's stack. Buffers are taken when there is
//     something to read.
//   - A process that is killed loses, repeats and tears nothing: what it had read
//     and not written is in memory that outlives it, if it was given some
//     ([Buffers]), and the next one goes on from there.
//
// It refuses to know containers, shims and CRI.
package logs
