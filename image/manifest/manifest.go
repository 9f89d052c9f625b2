package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/crid-project/crid/image/reference"
)

const (
	// MaxManifest bounds a manifest or index, in bytes.
	MaxManifest = 4 << 20
	// MaxConfig bounds an image configuration, in bytes.
	MaxConfig = 8 << 20
	// MaxLayers bounds the layers of one image.
	MaxLayers = 4096
	// MaxDepth bounds how deep indexes may be nested.
	MaxDepth = 4
	// schema1 is the beginning of the media types that Docker gave up.
	schema1Plain  = "application/vnd.docker.distribution.manifest.v1+json"
	schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// Kind is what a document turned out to be.
type Kind int

// The kinds of documents.
const (
	KindManifest Kind = iota + 1
	KindIndex
)

// Document is an index or a manifest, told apart.
type Document struct {
	Kind     Kind
	Manifest ocispec.Manifest
	Index    ocispec.Index
}

// probe reads just enough to tell kinds apart.
type probe struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Manifests     json.RawMessage `json:"manifests"`
	Layers        json.RawMessage `json:"layers"`
	Config        json.RawMessage `json:"config"`
	FSLayers      json.RawMessage `json:"fsLayers"`
	History       json.RawMessage `json:"history"`
}

// Parse reads an index or a manifest. mediaType is what the registry or the
// descriptor said; empty or a generic type if it said nothing. A document that
// could be read as both (CVE-2021-41190), one that contradicts its media type,
// one of schema 1 and one with foreign layers are refused
// (errdefs.ErrInvalidArgument).
func Parse(data []byte, mediaType string) (*Document, error) {
	if len(data) > MaxManifest {
		return nil, invalid("%d bytes, more than %d", len(data), MaxManifest)
	}
	var p probe
	if err := unmarshal(data, &p); err != nil {
		return nil, invalid("%v", err)
	}
	if err := p.check(mediaType); err != nil {
		return nil, err
	}
	if present(p.Manifests) {
		doc := &Document{Kind: KindIndex}
		if err := unmarshal(data, &doc.Index); err != nil {
			return nil, invalid("%v", err)
		}
		return doc, checkIndex(doc.Index)
	}
	doc := &Document{Kind: KindManifest}
	if err := unmarshal(data, &doc.Manifest); err != nil {
		return nil, invalid("%v", err)
	}
	return doc, checkManifest(doc.Manifest)
}

func (p probe) check(header string) error {
	header = bare(header)
	for _, mt := range []string{header, p.MediaType} {
		if mt == schema1Plain || mt == schema1Signed {
			return errSchema1()
		}
	}
	if p.SchemaVersion == 1 || present(p.FSLayers) {
		return errSchema1()
	}
	if p.SchemaVersion != 2 {
		return invalid("schemaVersion is %d, not 2", p.SchemaVersion)
	}
	index, man := present(p.Manifests), present(p.Layers) || present(p.Config)
	if index && man {
		return invalid("it has both manifests and layers, so that two readers may see two images")
	}
	if !index && !man {
		return invalid("it has neither manifests nor a config and layers")
	}
	for _, mt := range []string{header, p.MediaType} {
		switch {
		case images.IsIndexType(mt) && !index, images.IsManifestType(mt) && index:
			return invalid("its media type %q is not what it holds", mt)
		case mt == p.MediaType && mt != "" && !images.IsIndexType(mt) && !images.IsManifestType(mt):
			return invalid("unknown media type %q", mt)
		}
	}
	if KnownType(header) && p.MediaType != "" && header != p.MediaType {
		return invalid("it was announced as %q and says %q of itself", header, p.MediaType)
	}
	return nil
}

func checkIndex(idx ocispec.Index) error {
	for i, d := range idx.Manifests {
		if err := checkDescriptor(d, MaxManifest); err != nil {
			return fmt.Errorf("manifests[%d]: %w", i, err)
		}
	}
	return nil
}

func checkManifest(m ocispec.Manifest) error {
	if err := checkDescriptor(m.Config, MaxConfig); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return invalid("its config is %.100q, so it is an artifact and not a container image", m.Config.MediaType)
	}
	if len(m.Layers) > MaxLayers {
		return invalid("%d layers, more than %d", len(m.Layers), MaxLayers)
	}
	for i, d := range m.Layers {
		if err := checkDescriptor(d, 1<<50); err != nil {
			return fmt.Errorf("layers[%d]: %w", i, err)
		}
		if _, err := Compression(d.MediaType); err != nil {
			return fmt.Errorf("layers[%d]: %w", i, err)
		}
	}
	return nil
}

// checkDescriptor refuses what could become a wrong path, an endless read or a
// request to a host that the image chose.
func checkDescriptor(d ocispec.Descriptor, limit int64) error {
	if err := reference.CheckDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 || d.Size > limit {
		return invalid("size %d is not within 0 and %d", d.Size, limit)
	}
	if len(d.URLs) > 0 {
		return invalid("it names other places to load from (foreign layers); push the image with all its layers to the registry")
	}
	return nil
}

// Codec is how a layer is compressed.
type Codec int

// The codecs of layers.
const (
	Plain Codec = iota
	Gzip
	Zstd
)

// Compression tells how a layer of that media type is compressed.
func Compression(mediaType string) (Codec, error) {
	switch bare(mediaType) {
	case ocispec.MediaTypeImageLayer, images.MediaTypeDockerSchema2Layer:
		return Plain, nil
	case ocispec.MediaTypeImageLayerGzip, images.MediaTypeDockerSchema2LayerGzip:
		return Gzip, nil
	case ocispec.MediaTypeImageLayerZstd, images.MediaTypeDockerSchema2LayerZstd:
		return Zstd, nil
	case ocispec.MediaTypeImageLayerNonDistributable, ocispec.MediaTypeImageLayerNonDistributableGzip, ocispec.MediaTypeImageLayerNonDistributableZstd, //nolint:staticcheck // deprecated names are what is refused
		images.MediaTypeDockerSchema2LayerForeign, images.MediaTypeDockerSchema2LayerForeignGzip:
		return 0, invalid("foreign layers (%s) are not loaded; push the image with all its layers to the registry", mediaType)
	}
	return 0, invalid("unknown layer media type %.100q", mediaType)
}

func errSchema1() error {
	return invalid("it is of Docker schema 1, which no registry should serve any more; push the image again with a current tool")
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("read image manifest: "+format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// KnownType tells whether a media type is that of a manifest or of an index.
func KnownType(mediaType string) bool {
	return images.IsIndexType(mediaType) || images.IsManifestType(mediaType)
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && !bytes.Equal(raw, []byte("null")) }

// bare is a media type without parameters.
func bare(mediaType string) string {
	if mt, _, err := mime.ParseMediaType(mediaType); err == nil {
		return mt
	}
	return mediaType
}

// unmarshal reads exactly one JSON value.
func unmarshal(data []byte, v any) error {
	return json.Unmarshal(data, v)
}
