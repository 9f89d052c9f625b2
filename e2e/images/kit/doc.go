// Package kit makes the images that crid's tests, the CRI validation suite and `make run` use, on the machine itself and without
// any outside registry, and serves them from an in-process registry.
//
// It owns the programs in the images (a busybox from the distribution's source, and a few small ones of our own), the catalogue
// (which image has which content, and under which name), and the registry. The content is a function of the programs alone: times,
// owners and order are fixed, so that a digest changes only when a program does.
//
// It refuses to know which runtime pulls the images: names are those of the world (registry.k8s.io/..., docker.io/...), the registry
// serves them by their path, and the runtime is told by a hosts.toml per host (WriteHosts) that this is where they are.
package kit
