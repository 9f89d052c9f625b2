// Package chaos has the faults that the endurance tests and the comparison inject: programs that pose as runc and as a CNI plugin and
// misbehave when told to, a registry that does, small disks and what fills them, processes stopped, cgroups frozen or emptied, mounts taken away.
//
// It owns how a fault is made and how it is undone. It refuses to know when one is made, and what a runtime should do about it.
package chaos
