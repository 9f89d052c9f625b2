package kit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Hosts are the registries that the kit's registry stands in for.
var Hosts = []string{"registry.k8s.io", "k8s.gcr.io", "gcr.io", "docker.io", "quay.io", "ghcr.io", "public.ecr.aws", "mcr.microsoft.com"}

// Registry serves images on a loopback address, over plain HTTP, from memory.
type Registry struct {
	Addr   string // host:port
	server *http.Server
	done   chan struct{} // closed when it has ended
	end    error         // why; set before
}

// Wrap may stand between a registry and its clients: to ask for credentials, to be slow, to fail.
type Wrap func(http.Handler) http.Handler

// Serve starts a registry with the images in it. An addr of "127.0.0.1:0" chooses a free port. Close ends it.
func Serve(ctx context.Context, addr string, images []Image, wrap Wrap) (*Registry, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve test images: %w", err)
	}
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	gate := &gate{next: store}
	r := &Registry{Addr: listener.Addr().String(), done: make(chan struct{})}
	r.server = &http.Server{Handler: gate, ReadHeaderTimeout: 10 * time.Second}
	go func() { r.end = r.server.Serve(listener); close(r.done) }()
	for _, i := range images {
		if err := r.Push(ctx, i); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	if wrap != nil { // only now, or the wrap would have its way with our own pushes
		gate.set(wrap(store))
	}
	return r, nil
}

// Close ends the registry and every connection to it. It may be called twice.
func (r *Registry) Close() error {
	if err := r.server.Close(); err != nil {
		return fmt.Errorf("close test registry: %w", err)
	}
	select {
	case <-r.done:
	case <-time.After(5 * time.Second):
		return errors.New("close test registry: it does not end")
	}
	if !errors.Is(r.end, http.ErrServerClosed) {
		return fmt.Errorf("close test registry: %w", r.end)
	}
	return nil
}

// WriteHosts makes dir a certs.d folder that sends pulls from each of Hosts, or from the given hosts, to the registry at addr, and
// from nowhere else: "server" too is the registry, since a runtime would otherwise ask the real host after the mirror.
func WriteHosts(dir, addr string, hosts ...string) error {
	if len(hosts) == 0 {
		hosts = Hosts
	}
	for _, h := range hosts {
		if h != filepath.Base(h) || strings.HasPrefix(h, ".") {
			return fmt.Errorf("write hosts.toml: %q is no host", h)
		}
		text := fmt.Sprintf("server = \"http://%s\"\n\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", addr, addr)
		if err := os.MkdirAll(filepath.Join(dir, h), 0o755); err != nil {
			return fmt.Errorf("write hosts.toml: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, h, "hosts.toml"), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write hosts.toml: %w", err)
		}
	}
	return nil
}
