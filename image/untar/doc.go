// Package untar unpacks one layer's tar stream into a directory of its own, in
// the form that overlayfs wants of a lower directory.
//
// It owns the distrust: every name is resolved by the kernel inside the
// directory (openat2, RESOLVE_IN_ROOT), nothing is followed in the last
// component, sizes and counts are bounded, and work per entry does not grow
// with the number of entries. A layer is unpacked without a look at the layers
// below it, so that all layers of an image can be unpacked at once; what does
// depend on them (a hard link to a file of a lower layer, a directory that the
// layer uses but does not describe) is noted in the [Result] and settled by
// [Complete].
//
// It refuses to know registries, digests and where layers are kept.
package untar
