// Package shims injects the faults of shims on real parts.
package shims
