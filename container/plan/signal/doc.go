// Package signal reads and writes the names of Linux signals as images
// (STOPSIGNAL) and CRI write them: "SIGTERM", "TERM", "15", "SIGRTMIN+3".
//
// It owns the table of names. It refuses to know processes and CRI's enum:
// container/spec maps that to these names.
package signal
