package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container"
)

// maxBundle bounds what is read of a bundle's config.json, in bytes.
const maxBundle = 16 << 20

// BundleCgroup answers the cgroup that the OCI bundle of id names, as
// linux.cgroupsPath has it; empty if there is none that is id's own. For a
// container whose record is lost it is all that tells where its processes are.
func BundleCgroup(dir, id string) string {
	f, err := os.OpenFile(filepath.Join(dir, "config.json"), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	var spec struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxBundle)).Decode(&spec); err != nil {
		return ""
	}
	if len(id) != 64 || !strings.HasSuffix(path.Base(spec.Linux.CgroupsPath), id) {
		return ""
	}
	return spec.Linux.CgroupsPath
}

// endBound is how long processes of a stray may take to die.
const endBound = 5 * time.Second

// end kills everything in a cgroup, waits until the kernel says that it is
// empty, and removes it. Idempotent; one that does not exist is empty.
func end(ctx context.Context, cg container.Cgroup) error {
	ctx, cancel := context.WithTimeout(ctx, endBound)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := cg.Kill()
		if err == nil {
			var full bool
			if full, err = cg.Populated(); err == nil && !full {
				return cg.Remove(ctx)
			}
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return err
			}
			pids, _ := cg.Procs()
			return fmt.Errorf("processes %v do not die: %w", pids, ctx.Err())
		case <-time.After(wait):
		}
	}
}
