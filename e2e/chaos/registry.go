package chaos

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Registry stands between a registry and its clients.
type Registry struct{ mode atomic.Value }

// Modes of a registry; "" is well.
const (
	Busy  = "busy"  // 503 and Retry-After
	Reset = "reset" // the connection ends after some bytes
	Stall = "stall" // headers, and then nothing for seconds
	Lie   = "lie"   // other bytes than were asked for
)

// Set chooses how it behaves from the next request on.
func (r *Registry) Set(mode string) { r.mode.Store(mode) }

// Wrap is the kit's: it serves through the mode.
func (r *Registry) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mode, _ := r.mode.Load().(string)
		switch mode {
		case Busy:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case Reset:
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write([]byte("not the whole"))
			panic(http.ErrAbortHandler)
		case Stall:
			w.WriteHeader(http.StatusOK)
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			select {
			case <-req.Context().Done():
			case <-time.After(3 * time.Second):
			}
		case Lie:
			_, _ = w.Write([]byte("these are not the bytes that you are looking for"))
		default:
			next.ServeHTTP(w, req)
		}
	})
}
