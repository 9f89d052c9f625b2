// Package archive reads and writes the tar files that images travel in.
//
// It owns random access to a tar that came as a stream (written to a scratch
// file that has no name), and turning an unpacked layer back into a tar. It
// refuses to know what the files in an archive mean.
package archive
