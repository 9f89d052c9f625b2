// Package inject makes what is foreign to crid misbehave, on real parts: an OCI runtime and a shim that are the test binary itself under
// another name (Main, Runc, Shim), a file system that never answers (Hang), processes stopped, killed and moved, calls to a shim behind
// crid's back (Dial), a shim that is slow in one system call (Slow).
//
// It refuses to know what crid should make of it.
package inject
