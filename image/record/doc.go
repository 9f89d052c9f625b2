// Package record writes and reads small JSON files that must be whole or
// absent: a checksum over the content, written aside and renamed.
//
// It owns the file format. It refuses to know what is in the records.
package record
