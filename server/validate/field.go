package validate

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// FieldError says which field of a request cannot be accepted and why. It is
// an errdefs.ErrInvalidArgument.
type FieldError struct {
	// Field is the path in CRI's names, e.g. "config.metadata.name".
	Field string
	// Problem completes the sentence "Field …".
	Problem string
}

// Error implements error.
func (e *FieldError) Error() string { return "invalid request: " + e.Field + " " + e.Problem }

// Unwrap makes it an errdefs.ErrInvalidArgument.
func (e *FieldError) Unwrap() error { return errdefs.ErrInvalidArgument }

// Bad is a [FieldError] with a formatted problem.
func Bad(field, problem string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(problem, args...)}
}

// MaxID is the most characters of an id. crid's own have 64.
const MaxID = 128

// ID checks the id (or unique prefix of one) of a pod or container: letters,
// digits, '-' and '_', the first a letter or digit. Such a string is safe in a
// path, though none is made from one that the ledger does not know. UUIDs pass,
// because callers may ask about ids of another runtime and are owed NotFound.
func ID(field, id string) error {
	if id == "" {
		return Bad(field, "is empty")
	}
	if len(id) > MaxID {
		return Bad(field, "is longer than %d characters", MaxID)
	}
	for i := range len(id) {
		c := id[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '-' && c != '_') {
			return Bad(field, "is not an id: only letters, digits, '-' and '_' are allowed")
		}
	}
	return nil
}

// optionalID is [ID] for filters, where empty means any.
func optionalID(field, id string) error {
	if id == "" {
		return nil
	}
	return ID(field, id)
}

// name checks a required name of at most so many bytes without control characters.
func name(field, s string, most int) error {
	if s == "" {
		return Bad(field, "is empty")
	}
	return text(field, s, most)
}

// text checks a string of at most so many bytes without control characters.
func text(field, s string, most int) error {
	if len(s) > most {
		return Bad(field, "is longer than %d bytes", most)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return Bad(field, "contains a control character")
		}
	}
	return nil
}
