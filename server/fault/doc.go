// Package fault turns the errors of crid's parts into gRPC statuses, in one
// place and nowhere else.
//
// It owns the table from typed errors (errdefs, context, errno) to gRPC codes.
// It refuses to know which call failed, and it never changes a message.
package fault
