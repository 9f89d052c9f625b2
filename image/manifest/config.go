package manifest

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/crid-project/crid/image/reference"
)

// ParseConfig reads an image configuration and checks that it describes as
// many layers as the manifest has.
func ParseConfig(data []byte, layers int) (ocispec.Image, error) {
	var cfg ocispec.Image
	if len(data) > MaxConfig {
		return cfg, fmt.Errorf("read image config: %d bytes, more than %d: %w", len(data), MaxConfig, errdefs.ErrInvalidArgument)
	}
	if err := unmarshal(data, &cfg); err != nil {
		return cfg, fmt.Errorf("read image config: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if len(cfg.RootFS.DiffIDs) != layers {
		return cfg, fmt.Errorf("read image config: it lists %d layers, the manifest %d: %w", len(cfg.RootFS.DiffIDs), layers, errdefs.ErrInvalidArgument)
	}
	for i, d := range cfg.RootFS.DiffIDs {
		if err := reference.CheckDigest(d); err != nil {
			return cfg, fmt.Errorf("read image config: rootfs.diff_ids[%d]: %w", i, err)
		}
	}
	return cfg, nil
}

// ChainID is the OCI chain id of the first len(diffIDs) layers.
func ChainID(diffIDs []digest.Digest) digest.Digest {
	var chain digest.Digest
	for i, d := range diffIDs {
		if i == 0 {
			chain = d
		} else {
			chain = digest.FromString(chain.String() + " " + d.String())
		}
	}
	return chain
}

// Choose answers the entries of an index that fit the platform, best first.
// Entries without a platform come after those that fit; attestations and the
// like ("unknown/unknown") fit nothing.
func Choose(idx ocispec.Index, m platforms.MatchComparer) ([]ocispec.Descriptor, error) {
	var fit, unnamed []ocispec.Descriptor
	for _, d := range idx.Manifests {
		switch {
		case !KnownType(d.MediaType) && d.MediaType != "":
		case d.Platform == nil:
			unnamed = append(unnamed, d)
		case m.Match(platforms.Normalize(*d.Platform)):
			fit = append(fit, d)
		}
	}
	// Insertion keeps the index's order among equals.
	for i := 1; i < len(fit); i++ {
		for j := i; j > 0 && m.Less(*fit[j].Platform, *fit[j-1].Platform); j-- {
			fit[j], fit[j-1] = fit[j-1], fit[j]
		}
	}
	all := append(fit, unnamed...)
	if len(all) == 0 {
		return nil, fmt.Errorf("choose from image index of %d entries: none is for this platform (%s): %w",
			len(idx.Manifests), platforms.DefaultString(), errdefs.ErrNotFound)
	}
	return all, nil
}
