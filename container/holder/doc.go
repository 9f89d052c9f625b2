// Package holder keeps containers' output pipes readable while crid is away.
//
// A shim closes a container's output pipes when the container has ended. If
// crid is down at that moment nobody has them open any more, and the kernel
// throws away what was still in them: up to 64 KiB of each stream, the last
// words among them. So a small process of its own (src/holder.c: no libc, some
// pages of memory) has the read ends open as well. It never reads. It outlives
// crid, and crid takes up the pipes again where it left off.
//
// What was looked at instead: the shim can be made to keep nothing open beyond
// its copying; a logger process for each container (`binary://`) costs a process
// each and brings the log format into it; a descriptor inherited by the shim
// would be inherited by the OCI runtime, too; systemd's file descriptor store
// does this, but only where systemd starts crid, and it drops pipes that hang up.
//
// The package owns that process: starting and finding it, giving it pipes and
// taking them back, a new one when it dies, stops answering, or speaks another
// version. Every conversation has a deadline of a second, and crid works without
// it as before. It refuses to know containers and what is in the pipes.
//
// The programs are built from src/holder.c by `make holder` and are part of the
// source, so that building crid needs no C compiler:
//
//	gcc FLAGS -o container/holder/holder_amd64 container/holder/src/holder.c
//	aarch64-linux-gnu-gcc FLAGS -mgeneral-regs-only -mno-outline-atomics -o container/holder/holder_arm64 container/holder/src/holder.c
//
// with FLAGS = -static -nostdlib -nostartfiles -ffreestanding -fno-builtin
// -fno-tree-loop-distribute-patterns -fno-stack-protector
// -fno-asynchronous-unwind-tables -fno-strict-aliasing -fno-pic -no-pie -Os
// -Wall -Wextra -Werror
// -Wl,--build-id=none,-z,noseparate-code,-z,noexecstack,-z,norelro -s
package holder
