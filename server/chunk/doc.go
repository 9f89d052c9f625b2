// Package chunk cuts long lists into gRPC messages that every client accepts.
//
// It owns the size rule of CRI's streaming lists (KEP-5825): every item in
// exactly one message, no empty message, each message below a client's default
// limit, the end of the stream by returning. It refuses to know what the items
// are.
package chunk
