package kit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Push puts an image into the registry, under all its names.
func (r *Registry) Push(ctx context.Context, i Image) error {
	for _, n := range i.Names {
		repository, tag, ok := strings.Cut(n, ":")
		if !ok {
			return fmt.Errorf("push test image %s: it has no tag", n)
		}
		p := pusher{base: "http://" + r.Addr + "/v2/" + repository}
		if err := p.put(ctx, i, tag); err != nil {
			return fmt.Errorf("push test image %s: %w", n, err)
		}
	}
	return nil
}

// pusher speaks the few verbs of the distribution protocol that an upload over loopback needs.
type pusher struct{ base string }

func (p pusher) put(ctx context.Context, i Image, tag string) error {
	if i.index == nil {
		return p.image(ctx, i.image, tag)
	}
	list, err := i.index.IndexManifest()
	if err != nil {
		return err
	}
	for _, m := range list.Manifests {
		img, err := i.index.Image(m.Digest)
		if err != nil {
			return err
		}
		if err := p.image(ctx, img, m.Digest.String()); err != nil {
			return err
		}
	}
	return p.manifest(ctx, i.index, tag)
}

func (p pusher) image(ctx context.Context, img v1.Image, tag string) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		content, err := l.Compressed()
		if err != nil {
			return err
		}
		err = p.blob(ctx, digest, content)
		content.Close()
		if err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	digest, err := img.ConfigName()
	if err != nil {
		return err
	}
	if err := p.blob(ctx, digest, bytes.NewReader(config)); err != nil {
		return err
	}
	return p.manifest(ctx, img, tag)
}

// manifestOf is what an image and an index have in common.
type manifestOf interface {
	RawManifest() ([]byte, error)
	MediaType() (types.MediaType, error)
}

func (p pusher) manifest(ctx context.Context, m manifestOf, tag string) error {
	raw, err := m.RawManifest()
	if err != nil {
		return err
	}
	media, err := m.MediaType()
	if err != nil {
		return err
	}
	return p.send(ctx, http.MethodPut, "/manifests/"+tag, string(media), bytes.NewReader(raw))
}

func (p pusher) blob(ctx context.Context, digest v1.Hash, content io.Reader) error {
	if p.send(ctx, http.MethodHead, "/blobs/"+digest.String(), "", nil) == nil {
		return nil // another image, or another name, has brought it
	}
	return p.send(ctx, http.MethodPost, "/blobs/uploads/?digest="+digest.String(), "application/octet-stream", content)
}

func (p pusher) send(ctx context.Context, method, path, media string, body io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, body)
	if err != nil {
		return err
	}
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Errorf("%s %s: %s %s", method, path, res.Status, text)
	}
	return nil
}
