package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/crid-project/crid/image/archive"
	"github.com/crid-project/crid/image/manifest"
	"github.com/crid-project/crid/image/reference"
)

// ImportOptions say how an archive is read.
type ImportOptions struct {
	// Name is given to an image that the archive does not name.
	Name string
}

// annotationName is containerd's annotation of a full reference in an OCI layout.
const annotationName = "io.containerd.image.name"

// Import reads images from a tar stream: an OCI layout, what `docker save`
// writes, or both in one; plain, gzip or zstd. It answers what it imported;
// on error nothing of the failing image is left, those before it stay.
func (s *Store) Import(ctx context.Context, r io.Reader, opt ImportOptions) ([]Image, error) {
	if opt.Name != "" {
		ref, err := reference.Parse(opt.Name)
		if err != nil {
			return nil, fmt.Errorf("import images: %w", err)
		}
		opt.Name = ref.String()
	}
	ctx, dog := watch(ctx, s.cfg.ProgressTimeout)
	defer dog.stop()
	a, err := archive.Open(ctx, r, s.layers.Scratch(), func(int64) { dog.kick() })
	if err != nil {
		return nil, fmt.Errorf("import images: %w", s.diskFull(err))
	}
	defer a.Close()
	im := &importer{s: s, a: a, dog: dog, opt: opt}
	found, err := im.find(ctx)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("import images: the archive has neither index.json nor manifest.json: %w", errdefs.ErrInvalidArgument)
	}
	var out []Image
	for _, c := range found {
		img, err := im.one(ctx, c)
		if err != nil {
			return out, fmt.Errorf("import image %s: %w", strings.Join(c.names, ", "), s.diskFull(err))
		}
		out = append(out, img)
	}
	return out, nil
}

// importer is one archive being imported.
type importer struct {
	s   *Store
	a   *archive.Archive
	dog *watchdog
	opt ImportOptions
}

// candidate is one image of the archive, with its manifest.
type candidate struct {
	complete
	m ocispec.Manifest
}

func (im *importer) find(ctx context.Context) ([]*candidate, error) {
	docker, err := im.dockerNames()
	if err != nil {
		return nil, err
	}
	raw, err := im.a.ReadFile("index.json", manifest.MaxManifest)
	if errors.Is(err, archive.ErrNoFile) {
		return im.fromDocker(ctx, docker)
	}
	if err != nil {
		return nil, err
	}
	doc, err := manifest.Parse(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, err
	}
	var out []*candidate
	var missing error
	for _, d := range doc.Index.Manifests {
		c, err := im.fromIndex(ctx, d, docker)
		if errdefs.IsNotFound(err) {
			missing = err // another platform's, or its blobs are not in the archive
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 && missing != nil {
		return nil, missing
	}
	if len(out) == 1 && len(out[0].names) == 0 && im.opt.Name != "" {
		out[0].names = []string{im.opt.Name}
	}
	return out, nil
}

func (im *importer) fromIndex(ctx context.Context, d ocispec.Descriptor, docker []dockerEntry) (*candidate, error) {
	if d.Platform != nil && !im.s.cfg.Platform.Match(*d.Platform) {
		return nil, fmt.Errorf("image for %s/%s: %w", d.Platform.OS, d.Platform.Architecture, errdefs.ErrNotFound)
	}
	desc, raw, m, err := followManifests(ctx, d, im.s.cfg.Platform, func(d ocispec.Descriptor) ([]byte, error) {
		return im.document(d, manifest.MaxManifest)
	})
	if err != nil {
		return nil, err
	}
	c := &candidate{m: *m, complete: complete{manifest: raw, tops: []digest.Digest{d.Digest, desc.Digest}}}
	if c.config, err = im.document(m.Config, manifest.MaxConfig); err != nil {
		return nil, err
	}
	tags, err := namesOf(d.Annotations, im.opt.Name)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		for _, e := range docker {
			if strings.Contains(e.Config, m.Config.Digest.Encoded()) {
				tags = append(tags, e.tags...)
			}
		}
	}
	for _, t := range tags {
		c.names = append(c.names, t.String(), t.WithDigest(d.Digest).String())
	}
	return c, nil
}

// namesOf reads the names that a layout's index gives to an entry: a full
// reference, or a tag that wants the name given by the caller.
func namesOf(annotations map[string]string, base string) ([]reference.Ref, error) {
	full := annotations[annotationName]
	if full == "" {
		full = annotations[ocispec.AnnotationRefName]
		if full == "" {
			return nil, nil
		}
		if !strings.ContainsAny(full, "/:") {
			if base == "" {
				return nil, nil
			}
			r, err := reference.Parse(base)
			if err != nil {
				return nil, err
			}
			full = r.Name + ":" + full
		}
	}
	r, err := reference.Parse(full)
	if err != nil {
		return nil, err
	}
	if r.Tag == "" {
		return nil, nil
	}
	return []reference.Ref{r}, nil
}

// document reads a blob of a layout and verifies it.
func (im *importer) document(d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := reference.CheckDigest(d.Digest); err != nil {
		return nil, err
	}
	data, err := im.a.ReadFile(blobPath(d.Digest), limit)
	if errors.Is(err, archive.ErrNoFile) {
		return nil, fmt.Errorf("blob %s is not in the archive: %w", d.Digest, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return nil, fmt.Errorf("blob %s of the archive is something else: %w", d.Digest, errdefs.ErrDataLoss)
	}
	return data, nil
}

func blobPath(d digest.Digest) string {
	return path.Join("blobs", d.Algorithm().String(), d.Encoded())
}

// Blob opens a layer of a layout; it makes the importer a source of layers.
func (im *importer) Blob(ctx context.Context, d ocispec.Descriptor) io.ReadCloser {
	name := blobPath(d.Digest)
	if p := d.Annotations[archivePath]; p != "" {
		name = p
	}
	return im.a.Stream(ctx, name)
}

// archivePath says, in memory only, where a docker archive keeps a layer.
const archivePath = "crid.archive.path"

// dockerEntry is one image of docker's manifest.json.
type dockerEntry struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
	tags     []reference.Ref
}

func (im *importer) dockerNames() ([]dockerEntry, error) {
	raw, err := im.a.ReadFile("manifest.json", manifest.MaxManifest)
	if errors.Is(err, archive.ErrNoFile) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []dockerEntry
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("read manifest.json: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for i, e := range list {
		for _, t := range e.RepoTags {
			r, err := reference.Parse(t)
			if err != nil {
				return nil, err
			}
			list[i].tags = append(list[i].tags, r)
		}
	}
	return list, nil
}

// fromDocker makes manifests for an archive that has none of its own.
func (im *importer) fromDocker(ctx context.Context, list []dockerEntry) ([]*candidate, error) {
	var out []*candidate
	for _, e := range list {
		c := &candidate{}
		var err error
		if c.config, err = im.a.ReadFile(e.Config, manifest.MaxConfig); err != nil {
			return nil, err
		}
		if len(e.Layers) > manifest.MaxLayers {
			return nil, fmt.Errorf("%d layers: %w", len(e.Layers), errdefs.ErrInvalidArgument)
		}
		c.m = ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(c.config), Size: int64(len(c.config))}}
		for _, l := range e.Layers {
			d, err := im.describeLayer(ctx, l)
			if err != nil {
				return nil, err
			}
			c.m.Layers = append(c.m.Layers, d)
		}
		bare := c.m
		bare.Layers = nil
		for _, l := range c.m.Layers {
			l.Annotations = nil
			bare.Layers = append(bare.Layers, l)
		}
		if c.manifest, err = json.Marshal(bare); err != nil {
			return nil, err
		}
		top := digest.FromBytes(c.manifest)
		c.tops = []digest.Digest{top}
		for _, t := range e.tags {
			c.names = append(c.names, t.String(), t.WithDigest(top).String())
		}
		if len(c.names) == 0 && im.opt.Name != "" && len(list) == 1 {
			c.names = []string{im.opt.Name}
		}
		out = append(out, c)
	}
	return out, nil
}

// describeLayer reads a layer of a docker archive once for its digest.
func (im *importer) describeLayer(ctx context.Context, name string) (ocispec.Descriptor, error) {
	r := im.a.Stream(ctx, name)
	defer r.Close()
	h := digest.SHA256.Digester()
	n, err := io.Copy(h.Hash(), r)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read layer %q: %w", name, err)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: h.Digest(), Size: n, Annotations: map[string]string{archivePath: name}}, nil
}

// one unpacks and records an image of the archive.
func (im *importer) one(ctx context.Context, c *candidate) (Image, error) {
	begin := time.Now()
	cfg, err := manifest.ParseConfig(c.config, len(c.m.Layers))
	if err != nil {
		return Image{}, err
	}
	got, err := im.s.fetchLayers(ctx, c.m.Layers, cfg.RootFS.DiffIDs, im, im.dog)
	if err != nil {
		return Image{}, err
	}
	ls, err := im.s.commit(ctx, got)
	if err != nil {
		return Image{}, err
	}
	img, err := im.s.add(ctx, c.complete, ls)
	if err == nil {
		im.s.log.Info("image imported", "image", img.ID, "names", c.names, "took", time.Since(begin))
	}
	return img, err
}
