// Package inflate reads gzip streams, decompression being most of the work of
// pulling an image. It is faster than the general library on literals and short
// matches, of which programs and texts consist, and slower on long runs (see
// BenchmarkInflate).
//
// It owns the formats of RFC 1951 and 1952. Its input is distrusted: whatever
// comes in, it ends with an error or the right bytes, and memory is constant.
// It refuses to know layers and digests.
//
// What makes it fast: input is looked at in words of 64 bits instead of bytes,
// one table look-up yields up to two short literals, and the inner loop needs
// no checks for the ends of its buffers, because it only runs while there is
// room for the longest step.
package inflate
