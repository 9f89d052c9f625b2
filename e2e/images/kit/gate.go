package kit

import (
	"net/http"
	"sync/atomic"
)

// gate hands requests to a handler that may be exchanged while it serves.
type gate struct {
	next    http.Handler
	wrapped atomic.Pointer[http.Handler]
}

func (g *gate) set(h http.Handler) { g.wrapped.Store(&h) }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := g.wrapped.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	g.next.ServeHTTP(w, r)
}
