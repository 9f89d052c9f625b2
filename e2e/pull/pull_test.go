//go:build e2e

package pull

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func TestEveryNameOfAnImage(t *testing.T) {
	s := story.Begin(t)
	ref, err := s.Pull(t.Context(), "busybox:1")
	if err != nil {
		t.Fatal(err)
	}
	image := look(s, "busybox:1")
	if image == nil || len(image.GetRepoDigests()) == 0 || image.GetSize() == 0 || !slices.Contains(image.GetRepoTags(), "docker.io/library/busybox:1") {
		t.Fatalf("after the pull: %v", image)
	}
	digest := image.GetRepoDigests()[0]
	for _, name := range []string{ref, "docker.io/library/busybox:1", "docker.io/busybox:1", digest, image.GetId(), strings.TrimPrefix(image.GetId(), "sha256:"), image.GetId()[7:20]} {
		if got := look(s, name); got.GetId() != image.GetId() {
			t.Errorf("by %q it is %q", name, got.GetId())
		}
	}
	remove(s, "busybox:1")
	if look(s, image.GetId()) != nil {
		t.Error("removed by its only tag, it is still there")
	}
	// by digest: no tag, and a container can be made of it
	if _, err := s.Pull(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	if got := look(s, digest); len(got.GetRepoTags()) != 0 || got.GetId() != image.GetId() {
		t.Errorf("pulled by digest: %v", got)
	}
	config := story.Shell("c", "exit 0")
	config.Image.Image = digest
	if st := s.Pod("bydigest").Go(config).Exited(); st.GetExitCode() != 0 {
		t.Errorf("its container ends with %d", st.GetExitCode())
	}
	remove(s, digest)
}

func TestSeveralTagsOfOneImage(t *testing.T) {
	s := story.Begin(t)
	const repo = "gcr.io/k8s-staging-cri-tools/test-image-tags:"
	for _, tag := range []string{"1", "2", "3"} {
		if _, err := s.Pull(t.Context(), repo+tag); err != nil {
			t.Fatal(err)
		}
	}
	image := look(s, repo+"1")
	if len(image.GetRepoTags()) != 3 {
		t.Errorf("tags: %v", image.GetRepoTags())
	}
	r, err := s.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: repo + "2"}}})
	if err != nil || len(r.GetImages()) != 1 || r.GetImages()[0].GetId() != image.GetId() {
		t.Errorf("listed by one tag: %v (%v)", r.GetImages(), err)
	}
	remove(s, image.GetId()) // by id: with all its tags
	if look(s, repo+"3") != nil {
		t.Error("removed by id, it is still there by a tag")
	}
}

// Each form in which a registry may serve the same content runs.
func TestForms(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("forms")
	for _, form := range []string{"oci-gzip", "oci-zstd", "oci-tar", "docker-gzip"} {
		image := "quay.io/crid/forms:" + form
		if _, err := s.Pull(t.Context(), image); err != nil {
			t.Errorf("%s: %v", form, err)
			continue
		}
		config := story.Shell(form, "[ $(ls /bin | wc -l) -gt 100 ]")
		config.Image.Image = image
		if st := p.Go(config).Exited(); st.GetExitCode() != 0 {
			t.Errorf("%s: its container ends with %d", form, st.GetExitCode())
		}
		remove(s, image)
	}
}

// What is not there is told as such and in time, and nothing is left of the try.
func TestPullsThatCannotWork(t *testing.T) {
	s := story.Begin(t)
	zero := strings.Repeat("0", 64)
	for name, code := range map[string][]codes.Code{
		"registry.k8s.io/no/such:image":          {codes.NotFound, codes.Unknown},
		"registry.k8s.io/pause:no-such-tag":      {codes.NotFound, codes.Unknown},
		"registry.k8s.io/pause@sha256:" + zero:   {codes.NotFound, codes.Unknown},
		"registry.k8s.io/UPPER:case":             {codes.InvalidArgument},
		"../../etc/passwd":                       {codes.InvalidArgument},
		"":                                       {codes.InvalidArgument},
		"registry.k8s.io/pause:3.9@sha256:12345": {codes.InvalidArgument},
		"sha256:" + zero:                         {codes.InvalidArgument, codes.NotFound},
		"unreachable.invalid/x:1":                {codes.Unavailable, codes.Unknown, codes.NotFound},
	} {
		start := time.Now()
		_, err := s.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		s.WantCode("pull of "+name, err, code...)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("pull of %q: %s until the answer", name, took)
		}
	}
}

func TestCredentials(t *testing.T) {
	s := story.Begin(t)
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:secret:with:colons"))
	image := host(s, "private.example", before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == want {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}))
	pull := func(auth *runtimeapi.AuthConfig) error {
		_, err := s.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}, Auth: auth})
		return err
	}
	for what, auth := range map[string]*runtimeapi.AuthConfig{"none": nil, "wrong": {Username: "user", Password: "guess"}} {
		err := pull(auth)
		s.WantCode(what+" credentials", err, codes.Unauthenticated, codes.PermissionDenied)
		if err != nil && strings.Contains(err.Error(), "guess") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
	for what, auth := range map[string]*runtimeapi.AuthConfig{"user and password": {Username: "user", Password: "secret:with:colons"},
		"one string": {Auth: base64.StdEncoding.EncodeToString([]byte("user:secret:with:colons"))}} {
		if err := pull(auth); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		remove(s, image)
	}
	if log := s.LogTail(2000); strings.Contains(log, "secret:with") || strings.Contains(log, base64.StdEncoding.EncodeToString([]byte("user:secret"))[:14]) {
		t.Error("the daemon's log has the password")
	}
}

// A registry that hands out other bytes than the digest says is found out; and nothing of them stays.
func TestAWrongDigest(t *testing.T) {
	s := story.Begin(t)
	image := host(s, "liar.example", func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			body := answer.Body.Bytes()
			if len(body) > 100 {
				body[len(body)/2] ^= 1
			}
			for k, v := range answer.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(answer.Code)
			_, _ = w.Write(body) // the client may have gone
		})
	})
	start := time.Now()
	if _, err := s.Pull(t.Context(), image); err == nil {
		t.Error("an image of other bytes than its digest says is pulled")
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("%s until the answer", took)
	}
	if look(s, image) != nil {
		t.Error("and it is there")
	}
}

// A connection that breaks in the middle of a layer is taken up again.
func TestABrokenConnection(t *testing.T) {
	s := story.Begin(t)
	var cuts atomic.Int32
	image := host(s, "flaky.example", func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || cuts.Load() >= 2 {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			if answer.Body.Len() < 10000 {
				w.WriteHeader(answer.Code)
				_, _ = w.Write(answer.Body.Bytes())
				return
			}
			cuts.Add(1)
			for k, v := range answer.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/3])
			panic(http.ErrAbortHandler)
		})
	})
	if _, err := s.Pull(t.Context(), image); err != nil {
		t.Errorf("a connection that breaks twice: %v", err)
	}
	if cuts.Load() == 0 {
		t.Error("no connection was cut: the test tests nothing")
	}
}

// Errors that pass are waited out; those that stay are told.
func TestARegistryInTrouble(t *testing.T) {
	s := story.Begin(t)
	var asked atomic.Int32
	image := host(s, "busy.example", before(func(w http.ResponseWriter, _ *http.Request) bool {
		if asked.Add(1) > 2 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}))
	if _, err := s.Pull(t.Context(), image); err != nil {
		t.Logf("two answers of 429 end a pull: %v", err)
		if _, err := s.Pull(t.Context(), image); err != nil {
			t.Errorf("and the next pull fails too: %v", err)
		}
	}
	broken := host(s, "broken.example", before(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	}))
	start := time.Now()
	if _, err := s.Pull(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("a registry that only fails: %v", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("%s until that is told", took)
	}
}

// A registry that says nothing costs only those who ask for its images.
func TestARegistryThatHangs(t *testing.T) {
	s := story.Begin(t)
	release := make(chan struct{})
	image := host(s, "hung.example", before(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	}))
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := s.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	s.WantCode("a pull whose caller gives up", err, codes.DeadlineExceeded)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	if _, err := s.Pull(t.Context(), "quay.io/crid/forms:docker-gzip"); err != nil {
		t.Errorf("another registry's image meanwhile: %v", err)
	}
	remove(s, "quay.io/crid/forms:docker-gzip")
	if list, err := s.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{}); err != nil || len(list.GetImages()) == 0 {
		t.Errorf("the list meanwhile: %v (%v)", list, err)
	}
}

// What runs is not hurt by the removal of its image, and can be restarted as long as it is there.
func TestAnImageIsRemovedWhileItIsUsed(t *testing.T) {
	s := story.Begin(t)
	const image = "quay.io/crid/forms:oci-zstd"
	if err := s.Have(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	p := s.Pod("inuse")
	config := story.Sleeper("c")
	config.Image.Image = image
	c := p.Go(config)
	second := story.Sleeper("made")
	second.Image.Image = image
	made := p.Make(second)
	remove(s, image)
	c.Sh("ls /bin/busybox && cat /etc/passwd >/dev/null")
	made.Start()
	made.Sh("ls -l /bin/sh >/dev/null")
	if st := c.Status(); st.GetImageRef() == "" || st.GetImageId() == "" {
		t.Errorf("the status has forgotten the image: %v", st)
	}
	third := story.Sleeper("third")
	third.Image.Image = image
	if _, err := s.Create(t.Context(), p.ID, third, p.Config); err == nil {
		t.Error("a new container of a removed image")
	}
	if _, err := s.Pull(t.Context(), image); err != nil {
		t.Errorf("the image again, while old containers use it: %v", err)
	}
	p.Go(third).Sh("true")
	remove(s, image)
	c.Sh("cat /etc/group >/dev/null")
}
