// Package kernel injects the faults of shims on real parts.
package kernel
