package spec

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/crid-project/crid/container/spec/field"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxVolumes bounds how many anonymous volumes an image may ask for.
const maxVolumes = 256

// volumes returns the places of the image's VOLUME list that need a directory:
// clean absolute paths inside the container, sorted, without those that the
// configuration mounts itself. The strings are the image's, hence hostile: ".."
// ends at the container's root (CVE-2022-23648), and a volume over the root or
// inside the kernel's file systems is refused.
func (b *builder) volumes(image imagespec.ImageConfig) ([]string, error) {
	const name = "image config Volumes"
	if len(image.Volumes) > maxVolumes {
		return nil, field.Invalid(name, "has %d entries, at most %d are taken", len(image.Volumes), maxVolumes)
	}
	want := map[string]bool{}
	for _, v := range sortedKeys(image.Volumes) {
		dst, err := field.AbsPath(name, path.Join("/", v), true)
		if err != nil || v == "" {
			return nil, field.Invalid(name, "is not a path: %q", field.Short(v))
		}
		if dst == "/" || slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, func(top string) bool {
			return dst == top || strings.HasPrefix(dst, top+"/")
		}) {
			return nil, field.Invalid(name, "must not be the root or inside /proc, /sys or /dev, got %q", field.Short(v))
		}
		want[dst] = true
	}
	for _, m := range b.mounts {
		delete(want, m.dst)
	}
	return sortedKeys(want), nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
