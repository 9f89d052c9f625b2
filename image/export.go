package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/archive"
	"github.com/crid-project/crid/image/layers"
	"github.com/crid-project/crid/image/record"
)

// Export writes images as one tar that is an OCI layout and that `docker load`
// reads too. Layers are written from the unpacked files, uncompressed: names
// and content are the image's, digests (and so the image id) are not.
func (s *Store) Export(ctx context.Context, w io.Writer, refs ...string) error {
	if len(refs) == 0 {
		return fmt.Errorf("export images: name at least one: %w", errdefs.ErrInvalidArgument)
	}
	e := &exporter{s: s, tw: tar.NewWriter(w), layers: map[string]ocispec.Descriptor{}, blobs: map[digest.Digest]bool{},
		index: ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}}
	for _, ref := range refs {
		if err := e.image(ctx, ref); err != nil {
			return fmt.Errorf("export image %s: %w", ref, err)
		}
	}
	if err := e.finish(); err != nil {
		return fmt.Errorf("export images: %w", err)
	}
	return nil
}

type exporter struct {
	s      *Store
	tw     *tar.Writer
	layers map[string]ocispec.Descriptor // by layer name
	blobs  map[digest.Digest]bool
	index  ocispec.Index
	docker []dockerEntry
}

func (e *exporter) image(ctx context.Context, ref string) error {
	img, err := e.s.Resolve(ref)
	if err != nil {
		return err
	}
	ls, err := e.s.hold(img)
	if err != nil {
		return err
	}
	defer e.s.layers.Release(ls...)
	var rec imageRecord
	if err := record.Read(e.s.recordPath(img.ID), &rec); err != nil {
		return err
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Annotations: img.Annotations}
	de := dockerEntry{RepoTags: img.Tags}
	var diffIDs []digest.Digest
	for _, l := range ls {
		d, err := e.layer(ctx, l)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
		diffIDs = append(diffIDs, d.Digest)
		de.Layers = append(de.Layers, blobPath(d.Digest))
	}
	cfg, err := withDiffIDs(rec.Config, diffIDs)
	if err != nil {
		return err
	}
	if m.Config, err = e.blob(ocispec.MediaTypeImageConfig, cfg); err != nil {
		return err
	}
	de.Config = blobPath(m.Config.Digest)
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	top, err := e.blob(ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		return err
	}
	top.Platform = &ocispec.Platform{OS: img.Config.OS, Architecture: img.Config.Architecture, Variant: img.Config.Variant}
	for _, t := range img.Tags {
		d := top
		_, tag, _ := strings.Cut(t[strings.LastIndex(t, "/")+1:], ":")
		d.Annotations = map[string]string{annotationName: t, ocispec.AnnotationRefName: tag}
		e.index.Manifests = append(e.index.Manifests, d)
	}
	if len(img.Tags) == 0 {
		e.index.Manifests = append(e.index.Manifests, top)
	}
	e.docker = append(e.docker, de)
	return nil
}

// withDiffIDs replaces rootfs.diff_ids and leaves everything else of a
// configuration as it is, fields unknown to us too.
func withDiffIDs(config []byte, ids []digest.Digest) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(config, &all); err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	fs, err := json.Marshal(ocispec.RootFS{Type: "layers", DiffIDs: ids})
	if err != nil {
		return nil, err
	}
	all["rootfs"] = fs
	return json.Marshal(all)
}

// layer packs a layer into a scratch file, because a tar wants to know sizes first.
func (e *exporter) layer(ctx context.Context, l *layers.Layer) (ocispec.Descriptor, error) {
	if d, ok := e.layers[l.Name()]; ok {
		return d, nil
	}
	fd, err := unix.Open(e.s.layers.Scratch(), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("make scratch file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "scratch")
	defer f.Close()
	sum := digest.SHA256.Digester()
	if err := archive.Pack(ctx, e.s.layers.Dir(l), l.Root, io.MultiWriter(f, sum.Hash())); err != nil {
		return ocispec.Descriptor{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: sum.Digest(), Size: size}
	if err == nil {
		err = e.write(d, f)
	}
	e.layers[l.Name()] = d
	return d, err
}

func (e *exporter) blob(mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, e.write(d, bytes.NewReader(data))
}

func (e *exporter) write(d ocispec.Descriptor, r io.Reader) error {
	if e.blobs[d.Digest] {
		return nil
	}
	e.blobs[d.Digest] = true
	if err := e.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(d.Digest), Size: d.Size, Mode: 0o444}); err != nil {
		return err
	}
	_, err := io.Copy(e.tw, r)
	return err
}

func (e *exporter) finish() error {
	for name, v := range map[string]any{
		ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion},
		"index.json":            e.index,
		"manifest.json":         e.docker,
	} {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := e.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(raw)), Mode: 0o444}); err != nil {
			return err
		}
		if _, err := e.tw.Write(raw); err != nil {
			return err
		}
	}
	return e.tw.Close()
}
