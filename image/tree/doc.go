// Package tree walks, measures, removes and copies directory trees that an
// image or a container filled, and that are therefore hostile.
//
// It owns the rule that such a walk never follows a symbolic link and never
// crosses a mount. It refuses to know what the trees are for.
package tree
