//go:build e2e

package e2e

import (
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
)

func ownedByRoot(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0 && st.Gid == 0
}

func TestEveryFormOfAnImageRuns(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "forms", nil)
	for _, form := range []string{"oci-gzip", "oci-zstd", "oci-tar", "docker-gzip"} {
		image := "quay.io/crid/forms:" + form
		if _, err := d.Pull(t.Context(), image); err != nil {
			t.Error(err)
			continue
		}
		config := harness.Container(form, "echo", form)
		config.Image.Image = image
		if s := p.exited(p.start(config)); s.GetExitCode() != 0 || p.logged(config, "stdout") != form+"\n" {
			t.Errorf("%s: %d, %q", form, s.GetExitCode(), p.logged(config, "stdout"))
		}
	}
}

func TestAnImageFullOfOddities(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	const image = "ghcr.io/crid/oddities:1"
	if _, err := d.Pull(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	p := run(t, d, "odd", nil)
	config := harness.Container("c")
	config.Image.Image, config.Command = image, nil
	if s := p.exited(p.start(config)); s.GetExitCode() != 0 {
		t.Errorf("the image's own check says: %s", p.logged(config, "stdout"))
	}
}

func TestAnImageGoesByAllItsNames(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	get := func(name string) *runtimeapi.Image {
		t.Helper()
		r, err := d.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetImage()
	}
	if _, err := d.Pull(ctx, "busybox"); err != nil { // docker.io/library/busybox:latest
		t.Fatal(err)
	}
	image := get("busybox")
	if image == nil {
		t.Fatal("pulled and not there")
	}
	for _, name := range []string{"busybox:latest", "docker.io/library/busybox", "docker.io/library/busybox:latest", image.GetId(), image.GetRepoDigests()[0]} {
		if other := get(name); other.GetId() != image.GetId() {
			t.Errorf("by %s it is %q, not %q", name, other.GetId(), image.GetId())
		}
	}
	for _, name := range []string{"busybox", "busybox"} { // to remove what is gone is no error
		if _, err := d.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil {
			t.Error(err)
		}
	}
	if get("busybox") != nil {
		t.Error("removed and still there")
	}
}

func TestPullsThatCannotWork(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	digest := strings.Repeat("0", 64)
	before, err := d.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for name, what := range map[string]string{
		"registry.k8s.io/no/such:image":                     "an image that is not there",
		"registry.k8s.io/pause:no-such-tag":                 "a tag that is not there",
		"registry.k8s.io/pause@sha256:" + digest:            "a digest that is not there",
		"registry.k8s.io/UPPER:case":                        "no reference",
		"../../etc/passwd":                                  "no reference",
		"registry.k8s.io/pause:3.9@sha256:abc":              "no digest",
		"registry.k8s.io/pause:" + strings.Repeat("x", 200): "too long a tag",
		"": "nothing",
	} {
		start := time.Now()
		_, err := d.Pull(ctx, name)
		if err == nil {
			t.Errorf("%s (%s) is pulled", what, name)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s (%s): %s until the answer", what, name, took)
		}
	}
	if err := kit.WriteHosts(d.Home.Certs(), "127.0.0.1:1", "nobody.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Pull(ctx, "nobody.example/image:1"); err == nil {
		t.Error("a registry that nobody runs serves an image")
	}
	after, err := d.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil || len(after.GetImages()) != len(before.GetImages()) {
		t.Errorf("after failed pulls there are %d images, before %d (%v)", len(after.GetImages()), len(before.GetImages()), err)
	}
}

func TestAContainerOfAnImageThatIsNotThere(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "missing", nil)
	config := harness.Container("c")
	config.Image.Image = "registry.k8s.io/never/pulled:1"
	_, err := d.Create(t.Context(), p.id, config, p.config)
	if status.Code(err) != codes.NotFound {
		t.Errorf("the code is %s: %v", status.Code(err), err)
	}
	config = harness.Container("c", "/no/such/program")
	if id, err := d.Run(t.Context(), p.id, config, p.config); err == nil {
		t.Errorf("a program that does not exist runs: %s", id)
	} else if !strings.Contains(err.Error(), "no such file") && !strings.Contains(err.Error(), "not found") {
		t.Errorf("the error does not say what is missing: %v", err)
	}
	if entries, err := filepath.Glob(filepath.Join(p.config.GetLogDirectory(), "*")); err != nil || len(entries) > 1 {
		t.Errorf("logs of containers that never were: %v (%v)", entries, err)
	}
}
