// Package spec opens a CRI ContainerConfig: it checks every field, says what
// the hands have to do for it ([plan.Container]), and builds the OCI runtime
// spec from the facts that they found.
//
// It owns CRI's rules for containers and the meaning of each field; the census
// test keeps a field from being dropped silently. Sub-packages hold what pods
// need too (confine, resources, field) and the real machine behind [Options]
// (host).
//
// It refuses to know disks, processes and the ledger: it is pure but for the
// functions in [Options], and it may be asked the same thing twice. Every
// string is taken for hostile until checked, those of images above all: an
// image's labels are not even read.
package spec
