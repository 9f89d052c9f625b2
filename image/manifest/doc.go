// Package manifest reads the documents that describe an image: indexes,
// manifests and configurations, OCI's and Docker's (schema 2).
//
// It owns what such a document may look like: sizes, media types, platform
// choice, and the refusal of every document that two readers could understand
// differently. It refuses to know where documents come from or go to.
package manifest
