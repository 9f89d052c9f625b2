// Package user finds out as whom a container runs: the USER of its image or
// CRI's wish, resolved in the passwd and group files of the image.
//
// It owns the meaning of USER strings and the bounds on those files: both are
// written by whoever made the image. It refuses to know CRI messages.
package user
