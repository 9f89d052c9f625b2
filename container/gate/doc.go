// Package gate lets a few execs start at a time.
//
// It owns the turn-taking. It refuses to know what is started, and waits for nothing but a turn.
package gate
