// Package admin is the socket for whoever runs the node: profiles, the state
// dump, the check of invariants, images in and out, the log level.
//
// It owns the HTTP interface on <state>/admin.sock, which only root can open.
// It refuses to know what is behind it: everything is given as a function.
package admin
