// Package validate refuses bad CRI requests before anything acts on them.
//
// Two looks at every request: a walk over the whole message by protobuf
// reflection (unknown enum numbers, NUL bytes, sizes), so that a field added to
// CRI tomorrow is covered today, and one small rule per request type for what
// the field means. An error names the field in CRI's own words and never
// repeats a value: it may be a secret, and it may be long.
//
// It owns limits and the shape of ids. It refuses to know the ledger, and it
// leaves the contents of the two big configuration messages to container/spec
// and sandbox/spec.
package validate
