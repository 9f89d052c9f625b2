package kit

import (
	"fmt"
	"runtime"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Names of images that tests use most, as a runtime is asked for them.
const (
	Busybox = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
	Nginx   = "registry.k8s.io/e2e-test-images/nginx:1.14-2"
	Httpd   = "registry.k8s.io/e2e-test-images/httpd:2.4.39-4"
	Pause   = "registry.k8s.io/pause:3.10.2"
	Demo    = "localhost/crid/demo:1"           // what make run imports: busybox that says hello
	Layers  = "registry.k8s.io/bench/layers:40" // many layers, made only when asked for
	Digest  = "gcr.io/k8s-staging-cri-tools/test-image-digest:single"
)

// Image is one entry of the catalogue: a manifest or an index of manifests, under one or more names.
type Image struct {
	Names []string // repository paths with tag, without a registry's host
	image v1.Image
	index v1.ImageIndex
}

// Digest of the manifest, or of the index if there is one.
func (i Image) Digest() (v1.Hash, error) {
	if i.index != nil {
		return i.index.Digest()
	}
	return i.image.Digest()
}

// catalogue collects images; the first error stops everything that follows.
type catalogue struct {
	*Programs
	images  []Image
	err     error
	foreign *layer
}

const pathEnv = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (c *catalogue) layer(fill func(*tree)) v1.Layer { return c.layerAs(types.DockerLayer, fill) }

func (c *catalogue) layerAs(media types.MediaType, fill func(*tree)) v1.Layer {
	l, err := newLayer(media, fill)
	if err != nil && c.err == nil {
		c.err = err
	}
	return l
}

// config is what an image says of itself; the zero value is busybox's.
type config struct {
	v1.Config
	arch string
}

func (c *catalogue) manifest(cfg config, layers ...v1.Layer) v1.Image {
	if c.err != nil {
		return nil
	}
	img := empty.Image
	if media, _ := layers[0].MediaType(); slices.Contains([]types.MediaType{types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer}, media) {
		img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	var adds []mutate.Addendum
	for n, l := range layers {
		adds = append(adds, mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: fmt.Sprintf("crid test image, layer %d", n)}})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		c.err = err
		return nil
	}
	file, err := img.ConfigFile()
	if err != nil {
		c.err = err
		return nil
	}
	file = file.DeepCopy()
	if len(cfg.Env) == 0 {
		cfg.Env = []string{pathEnv}
	}
	if len(cfg.Cmd)+len(cfg.Entrypoint) == 0 {
		cfg.Cmd = []string{"sh"}
	}
	file.Config, file.OS, file.Architecture, file.Created = cfg.Config, "linux", cfg.arch, v1.Time{Time: epoch}
	if file.Architecture == "" {
		file.Architecture = runtime.GOARCH
	}
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		c.err = err
	}
	return img
}

// single enters an image as one manifest.
func (c *catalogue) single(cfg config, layers []v1.Layer, names ...string) {
	if img := c.manifest(cfg, layers...); c.err == nil {
		c.images = append(c.images, Image{Names: names, image: img})
	}
}

// multi enters an image as the images of the world are: a list of manifests for several architectures. That of another
// architecture stands first and holds nothing that runs, so that "take the first" is found out.
func (c *catalogue) multi(cfg config, layers []v1.Layer, names ...string) {
	other := config{Config: cfg.Config, arch: "arm64"}
	if runtime.GOARCH == other.arch {
		other.arch = "amd64"
	}
	wrong, right := c.manifest(other, c.foreign), c.manifest(cfg, layers...)
	if c.err != nil {
		return
	}
	list := mutate.IndexMediaType(empty.Index, types.DockerManifestList)
	list = mutate.AppendManifests(list,
		mutate.IndexAddendum{Add: wrong, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: other.arch}}},
		mutate.IndexAddendum{Add: right, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
	c.images = append(c.images, Image{Names: names, index: list})
}

// Catalogue makes every image, in memory. With heavy, the images that only benchmarks pull are among them.
func (p *Programs) Catalogue(heavy bool) ([]Image, error) {
	c := &catalogue{Programs: p}
	foreign, err := newLayer(types.DockerLayer, func(t *tree) { t.text("WRONG-ARCHITECTURE", "this image is for another machine\n") })
	if err != nil {
		return nil, err
	}
	c.foreign = foreign
	base := c.layer(p.busybox)
	c.servers(base)
	c.small(base)
	c.ours(base)
	if heavy {
		c.heavy()
	}
	if c.err != nil {
		return nil, fmt.Errorf("make test images: %w", c.err)
	}
	return c.images, nil
}
