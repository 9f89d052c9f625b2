//go:build e2e

// Package pull tests how images come, go by their names, and leave, from registries that are well, strict, slow and broken.
package pull

import (
	"context"
	"net/http"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) { story.Main(m) }

// fresh is an image with a layer that no other image of these tests has: it must really be fetched.
const fresh = "e2e-test-images/httpd:2.4.39-4"

var catalogue = sync.OnceValues(func() ([]kit.Image, error) {
	programs, err := kit.Build(context.Background())
	if err != nil {
		return nil, err
	}
	return programs.Catalogue(false)
})

// host serves one image under a host name of its own, through a wrap, and makes the daemon ask there.
func host(s *story.Story, name string, wrap kit.Wrap) (image string) {
	s.T.Helper()
	images, err := catalogue()
	if err != nil {
		s.T.Fatal(err)
	}
	one, err := kit.Find(images, "registry.k8s.io/"+fresh)
	if err != nil {
		s.T.Fatal(err)
	}
	registry, err := kit.Serve(s.T.Context(), "127.0.0.1:0", []kit.Image{one}, wrap)
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() {
		if err := registry.Close(); err != nil {
			s.T.Error(err)
		}
	})
	if err := kit.WriteHosts(s.Home.Certs(), registry.Addr, name); err != nil {
		s.T.Fatal(err)
	}
	image = name + "/" + fresh
	s.T.Cleanup(func() { remove(s, image) })
	return image
}

func remove(s *story.Story, image string) {
	s.T.Helper()
	if _, err := s.Images.RemoveImage(s.T.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}); err != nil && s.T.Context().Err() == nil {
		s.T.Error(err)
	}
}

// look is what the daemon knows of an image; nil if nothing.
func look(s *story.Story, name string) *runtimeapi.Image {
	s.T.Helper()
	r, err := s.Images.ImageStatus(s.T.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	if err != nil {
		s.T.Fatal(err)
	}
	return r.GetImage()
}

// before lets each request through a function that may answer it itself, by returning true.
func before(answer func(http.ResponseWriter, *http.Request) bool) kit.Wrap {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !answer(w, r) {
				next.ServeHTTP(w, r)
			}
		})
	}
}
