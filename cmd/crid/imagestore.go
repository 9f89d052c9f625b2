package main

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/crid-project/crid/config"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/server/admin"
)

func init() { Images = openStore }

// imageConfig is the image store as the configuration wants it.
func imageConfig(c *config.Config, log *slog.Logger) image.Config {
	return image.Config{Root: filepath.Join(c.Root, "images"), Containers: filepath.Join(c.Root, "containers"),
		CertsDirs: c.Registry.CertsDirs, Snapshotter: snapshotter(c.Images.Snapshotter), ProgressTimeout: c.Images.ProgressTimeout.Std(),
		Parallel: c.Images.MaxConcurrentLayers, MaxLayerBytes: int64(c.Images.MaxLayerSize), Pinned: c.Images.Pinned,
		UserAgent: "crid/" + version(), Log: log}
}

// openStore opens the image store without a daemon, whose lock the caller has.
func openStore(_ context.Context, c *config.Config) (ImageStore, error) {
	s, err := image.Open(imageConfig(c, slog.Default()))
	if err != nil {
		return nil, err
	}
	return storedImages{s}, nil
}

// storedImages is the image store itself, as the command line wants it.
type storedImages struct{ s *image.Store }

func (i storedImages) Import(ctx context.Context, archive io.Reader, _ func(string)) ([]Image, error) {
	got, err := i.s.Import(ctx, archive, image.ImportOptions{})
	return listed(adminImages(got)), err
}

func (i storedImages) Export(ctx context.Context, w io.Writer, refs []string) error {
	return i.s.Export(ctx, w, refs...)
}

func (i storedImages) List(context.Context) ([]Image, error) {
	return listed(adminImages(i.s.List())), nil
}

func (i storedImages) Close() error { return i.s.Close() }

func listed(in []admin.Image) []Image {
	out := make([]Image, 0, len(in))
	for _, a := range in {
		out = append(out, Image{ID: a.ID, Tags: a.Tags, Digests: a.Digests, Size: a.Size, Pinned: a.Pinned})
	}
	return out
}
