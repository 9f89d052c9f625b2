// Package reference reads image references the way users of Docker and
// containerd write them, and nothing but those.
//
// It owns the rules for short names ("busybox" is
// docker.io/library/busybox:latest) and for digests. It refuses to know
// registries, disks and which images exist.
package reference
