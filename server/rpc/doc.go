// Package rpc is what every CRI call passes through: validation, a deadline,
// recovery from panics, error codes, latency, a log line.
//
// It owns nothing of any single call and refuses to know their meaning. It
// never logs a request, only the ids in it: requests carry credentials and
// environment variables.
package rpc
