package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/crid-project/crid/server/fault"
)

// maxRefs bounds the references of one export.
const maxRefs = 256

// Finding is one invariant that does not hold.
type Finding struct {
	Name string `json:"name"`
	// Severity is "warn" or "fail".
	Severity string `json:"severity"`
	Message  string `json:"message"`
	// Cure says what to do.
	Cure string `json:"cure,omitempty"`
}

// Image is one image of the node.
type Image struct {
	ID      string   `json:"id"`
	Tags    []string `json:"tags"`
	Digests []string `json:"digests"`
	Size    int64    `json:"size"`
	Pinned  bool     `json:"pinned"`
}

// Deps are what the socket offers; a nil function answers 501.
type Deps struct {
	// State answers everything that crid has in its ledger, for JSON.
	State func() any
	// Check looks at the invariants and answers those that do not hold.
	Check func(context.Context) ([]Finding, error)
	// Import reads an image archive and answers what it brought; progress
	// takes a line for the user.
	Import func(ctx context.Context, r io.Reader, progress func(string)) ([]Image, error)
	// Export writes an image archive.
	Export func(ctx context.Context, w io.Writer, refs []string) error
	// Images answers all images.
	Images func() []Image
	// Level is the log level that can be changed.
	Level *slog.LevelVar
	Log   *slog.Logger
}

// Handler answers the requests of the admin socket.
func Handler(d Deps) http.Handler {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	h := &handler{d}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /state", h.state)
	mux.HandleFunc("GET /check", h.check)
	mux.HandleFunc("GET /images", h.images)
	mux.HandleFunc("POST /images/import", h.load)
	mux.HandleFunc("GET /images/export", h.export)
	mux.HandleFunc("GET /log/level", h.level)
	mux.HandleFunc("PUT /log/level", h.setLevel)
	return mux
}

type handler struct{ d Deps }

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client is gone: nobody is left to tell
}

type problem struct {
	Error string `json:"error"`
}

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch fault.Code(err) {
	case codes.InvalidArgument:
		code = http.StatusBadRequest
	case codes.NotFound:
		code = http.StatusNotFound
	case codes.FailedPrecondition, codes.AlreadyExists:
		code = http.StatusConflict
	case codes.ResourceExhausted:
		code = http.StatusInsufficientStorage
	case codes.DeadlineExceeded, codes.Unavailable:
		code = http.StatusServiceUnavailable
	default:
	}
	answer(w, code, problem{err.Error()})
}

func missing(w http.ResponseWriter) { answer(w, http.StatusNotImplemented, problem{"not offered"}) }

func (h *handler) state(w http.ResponseWriter, _ *http.Request) {
	if h.d.State == nil {
		missing(w)
		return
	}
	answer(w, http.StatusOK, h.d.State())
}

// check answers the list of what does not hold; an empty one is good news.
func (h *handler) check(w http.ResponseWriter, r *http.Request) {
	if h.d.Check == nil {
		missing(w)
		return
	}
	broken, err := h.d.Check(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, http.StatusOK, append([]Finding{}, broken...))
}

func (h *handler) images(w http.ResponseWriter, _ *http.Request) {
	if h.d.Images == nil {
		missing(w)
		return
	}
	answer(w, http.StatusOK, append([]Image{}, h.d.Images()...))
}

// line is one line of the answer to an import: exactly one field is set.
type line struct {
	Progress string `json:"progress,omitempty"`
	Image    *Image `json:"image,omitempty"`
	Error    string `json:"error,omitempty"`
}

// load takes the archive as the request's body and answers lines of JSON: what
// is being done, then every image, or the error. The status is always 200: it
// is sent with the first line, before the end is known.
func (h *handler) load(w http.ResponseWriter, r *http.Request) {
	if h.d.Import == nil {
		missing(w)
		return
	}
	// Answering before the whole body is read.
	out := http.NewResponseController(w)
	_ = out.EnableFullDuplex()
	w.Header().Set("Content-Type", "application/jsonl")
	e := json.NewEncoder(w)
	say := func(l line) {
		if e.Encode(l) == nil {
			_ = out.Flush()
		}
	}
	images, err := h.d.Import(r.Context(), r.Body, func(s string) { say(line{Progress: s}) })
	if err != nil {
		h.d.Log.Warn("import of images failed", "error", err)
		say(line{Error: err.Error()})
		return
	}
	for i := range images {
		say(line{Image: &images[i]})
	}
}

// export writes the archive as the answer's body. An error after the first
// byte can only break off the connection.
func (h *handler) export(w http.ResponseWriter, r *http.Request) {
	if h.d.Export == nil {
		missing(w)
		return
	}
	refs := r.URL.Query()["ref"]
	if len(refs) == 0 || len(refs) > maxRefs {
		answer(w, http.StatusBadRequest, problem{fmt.Sprintf("give 1 to %d images as ?ref=NAME&ref=NAME", maxRefs)})
		return
	}
	out := &began{ResponseWriter: w}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := h.d.Export(r.Context(), out, refs); err != nil {
		h.d.Log.Warn("export of images failed", "error", err)
		if out.yes {
			panic(http.ErrAbortHandler)
		}
		fail(w, err)
	}
}

// began notes whether anything was written.
type began struct {
	http.ResponseWriter
	yes bool
}

// Write implements io.Writer.
func (b *began) Write(p []byte) (int, error) {
	b.yes = true
	return b.ResponseWriter.Write(p)
}

func (h *handler) level(w http.ResponseWriter, _ *http.Request) {
	if h.d.Level == nil {
		missing(w)
		return
	}
	answer(w, http.StatusOK, map[string]string{"level": strings.ToLower(h.d.Level.Level().String())})
}

// setLevel takes the level as ?level=debug.
func (h *handler) setLevel(w http.ResponseWriter, r *http.Request) {
	if h.d.Level == nil {
		missing(w)
		return
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(r.URL.Query().Get("level"))); err != nil {
		answer(w, http.StatusBadRequest, problem{"level must be debug, info, warn or error"})
		return
	}
	old := h.d.Level.Level()
	h.d.Level.Set(l)
	h.d.Log.Info("log level changed", "from", old.String(), "to", l.String())
	h.level(w, r)
}
