// Package fitness examines whether this machine can run pods: kernel, cgroups,
// runtimes, network, disks, limits. Every finding that is not ok says how it
// is cured.
//
// It owns the list of what is looked at and what each result means. It changes
// nothing but for a scratch directory below crid's root, which it removes, and
// refuses to know the daemon and its records.
package fitness
