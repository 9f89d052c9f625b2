// Package proc runs servers that outlive the program which started them, each with a log and a file that tells its pid and start time.
//
// It owns starting, finding again, stopping and killing; it refuses to know what it runs. It signals only what it has started: a pid is
// compared with its start time first, through a pidfd.
package proc
