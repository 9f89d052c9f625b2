//go:build !failpoints

package failpoint

// At is a moment in which the daemon's work may fail. Here it does nothing.
func At(string) error { return nil }

// Pass is a moment in which nothing may fail. Here it does nothing.
func Pass(string) {}

// Sending is the moment just after what follows has been sent. Here it does nothing.
func Sending(string) error { return nil }
