package kit

import (
	"bytes"
	"fmt"
	"os"
)

// pinned is the one digest that critest 1.36 asks for by itself ("public image with digest should be pulled and removed"). The
// image it belongs to cannot be made again, so offline that test would fail for every runtime.
const pinned = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf"

// PatchDigest writes a copy of the critest program in which that digest, a string constant that occurs exactly once, is the digest
// of the kit's own image. Nothing else differs: the two have the same length.
func PatchDigest(critest, out string, images []Image) error {
	i, err := Find(images, Digest)
	if err != nil {
		return err
	}
	digest, err := i.Digest()
	if err != nil {
		return fmt.Errorf("patch critest: %w", err)
	}
	program, err := os.ReadFile(critest)
	if err != nil {
		return fmt.Errorf("patch critest: %w", err)
	}
	if n := bytes.Count(program, []byte(pinned)); n != 1 {
		return fmt.Errorf("patch critest: the pinned digest occurs %d times in %s, not once: another release?", n, critest)
	}
	program = bytes.Replace(program, []byte(pinned), []byte(digest.Hex), 1)
	if err := os.WriteFile(out, program, 0o755); err != nil {
		return fmt.Errorf("patch critest: %w", err)
	}
	return nil
}
