package kit

import (
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Find is the image of a full name such as Busybox, or of its path.
func Find(images []Image, ref string) (Image, error) {
	parsed, err := name.NewTag(ref)
	if err != nil {
		return Image{}, fmt.Errorf("find test image: %w", err)
	}
	want := parsed.RepositoryStr() + ":" + parsed.TagStr()
	for _, i := range images {
		if slices.Contains(i.Names, want) {
			return i, nil
		}
	}
	return Image{}, fmt.Errorf("find test image: the catalogue has no %s", want)
}

// Save writes one image as a docker archive (as `docker save` does), under the given full name. The image must be of a single
// manifest. The file appears whole or not at all.
func Save(file, ref string, i Image) error {
	if i.image == nil {
		return fmt.Errorf("save %s: it is an index, and an archive holds one image", path.Base(ref))
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("save image: %w", err)
	}
	if err := tarball.WriteToFile(file+".new", tag, i.image); err != nil {
		return fmt.Errorf("save %s: %w", ref, err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("save %s: %w", ref, err)
	}
	return nil
}
