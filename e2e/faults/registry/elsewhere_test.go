//go:build e2e

package registry

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
)

// Where a registry sends one: a circle, the cloud's secrets, a file, another scheme, a token server that asks again, or that answers without an
// end. It ends soon, and nobody else is given the password.
func TestF99RedirectsAndRealms(t *testing.T) {
	t.Parallel()
	b := begin(t)
	watch.Others(b.Story)
	l := noise(1000)
	thief := newShelf()
	thief.image("1", l)
	var stolen []string
	thief.setPlan(func(_ http.ResponseWriter, r *http.Request) bool {
		if a := r.Header.Get("Authorization"); a != "" {
			stolen = append(stolen, a+" for "+r.URL.Path)
		}
		return false
	})
	elsewhere := "http://" + strings.Replace(thief.start(t), "127.0.0.1", "localhost", 1)
	realm := func(at string) func(*shelf, http.ResponseWriter, *http.Request) bool {
		return func(s *shelf, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case strings.HasPrefix(r.URL.Path, "/vast"):
				for range 64 {
					_, _ = w.Write([]byte(strings.Repeat(`{"token":"`, 1<<16)))
				}
				return true
			case strings.HasPrefix(r.URL.Path, "/v2/"):
				to := at
				if strings.HasPrefix(at, "/") {
					to = "http://" + s.addr + at
				}
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, to))
			}
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
	}
	to := func(where string) func(*shelf, http.ResponseWriter, *http.Request) bool {
		return func(s *shelf, w http.ResponseWriter, r *http.Request) bool {
			if u, p, _ := r.BasicAuth(); strings.HasPrefix(where, "http://localhost") && (u != "me" || p != "hunter2") {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			if where == "" {
				where = "http://" + s.addr + r.URL.Path + "x"
			}
			http.Redirect(w, r, where, http.StatusTemporaryRedirect)
			return true
		}
	}
	cases := map[string]func(*shelf, http.ResponseWriter, *http.Request) bool{
		"a circle":            to(""),
		"the cloud's secrets": to("http://169.254.169.254/latest/meta-data"),
		"the same in IPv6":    to("http://[::ffff:169.254.169.254]/latest"),
		"a file":              to("file:///etc/passwd"),
		"another host":        to(elsewhere + "/v2/none/manifests/none"),
		"401 for ever": func(_ *shelf, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		"401 without a word": func(_ *shelf, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		"tokens from another host":   realm(elsewhere + "/token"),
		"tokens from the metadata":   realm("http://169.254.169.254/token"),
		"a token server that asks":   realm("/token"),
		"a token of 40 MiB":          realm("/vast"),
		"a realm that is no address": realm("::::"),
	}
	for what, plan := range cases {
		s := newShelf()
		s.image("1", l)
		s.setPlan(func(w http.ResponseWriter, r *http.Request) bool { return plan(s, w, r) })
		b.serve("away.example", s)
		b.fresh()
		before, start := b.hwm(), time.Now()
		_, err := b.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "away.example/a:1"},
			Auth: &runtimeapi.AuthConfig{Username: "me", Password: "hunter2"}})
		if err == nil {
			t.Errorf("%s: pulled", what)
			b.remove("away.example/a:1")
			continue
		}
		b.WantCode(what, err, codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable, codes.NotFound, codes.InvalidArgument)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: %s until the answer", what, took)
		}
		if n := s.count("/v2/"); n > 100 {
			t.Errorf("%s: asked %d times", what, n)
		}
		if strings.Contains(err.Error(), "hunter2") || len(err.Error()) > 8<<10 {
			t.Errorf("%s: the error: %.1000v", what, err)
		}
		if grown := b.hwm() - before; grown > 64<<10 {
			t.Errorf("%s: the daemon needed %d MiB more", what, grown>>10)
		}
		b.nothingLeft(what)
		t.Logf("%s: %.200v", what, err)
	}
	if len(stolen) > 0 {
		t.Errorf("another host was given %q", stolen)
	}
	if strings.Contains(b.LogTail(5000), "hunter2") {
		t.Error("the daemon's log has the password")
	}
}
