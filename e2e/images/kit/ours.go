package kit

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const helloScript = `#!/bin/sh
echo "hello from $(hostname), this is crid's demo image"
echo "a line on standard error" >&2
trap 'echo "asked to stop"; exit 0' TERM
i=0
while :; do i=$((i+1)); echo "tick $i"; sleep 5 & wait $!; done
`

// ours are images of this project: the demonstration, and the same small image in every form that a registry may serve it in.
func (c *catalogue) ours(base v1.Layer) {
	hello := c.layer(func(t *tree) { t.file("bin/hello", 0o755, []byte(helloScript)) })
	c.single(config{Config: v1.Config{Cmd: []string{"/bin/hello"}, Labels: label("demo")}}, []v1.Layer{base, hello}, "crid/demo:1")

	for tag, media := range map[string]types.MediaType{
		"oci-gzip": types.OCILayer, "oci-zstd": types.OCILayerZStd, "oci-tar": types.OCIUncompressedLayer, "docker-gzip": types.DockerLayer,
	} {
		c.single(config{Config: v1.Config{Labels: label(tag)}}, []v1.Layer{c.layerAs(media, c.busybox)}, "crid/forms:"+tag)
	}
	c.oddities(base)
}

// oddities needs an unpacker that knows the whole of the layer format. Its command prints "oddities: ok", or what is wrong.
func (c *catalogue) oddities(base v1.Layer) {
	long := "long/"
	for i := range 12 {
		long += fmt.Sprintf("a-folder-with-a-long-name-%02d/", i)
	}
	first := c.layer(func(t *tree) {
		t.text("odd/removed", "still here\n")
		t.text("odd/opaque/below", "still here\n")
		t.text("odd/becomes-dir", "a file\n")
		t.dir("odd/becomes-file", 0o755)
		t.text("odd/becomes-file/inner", "still here\n")
		t.symlink("odd/link-to-dir", "opaque")
		t.text("odd/link-target", "from the first layer\n")
		t.text(long+"file", "deep\n")
		t.file("odd/setuid", 0o4755, []byte("#!/bin/sh\n"))
		t.add(tar.Header{Typeflag: tar.TypeFifo, Name: "odd/fifo", Mode: 0o600}, nil)
		t.add(tar.Header{Typeflag: tar.TypeChar, Name: "odd/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, nil)
		t.add(tar.Header{Typeflag: tar.TypeReg, Name: "odd/owned", Mode: 0o640, Uid: 1234, Gid: 5678}, []byte("owned\n"))
		t.add(tar.Header{Typeflag: tar.TypeReg, Name: "odd/xattr", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.crid": "yes"}}, []byte("x\n"))
	})
	second := c.layer(func(t *tree) {
		t.text("odd/.wh.removed", "")
		t.text("odd/opaque/above", "new\n")
		t.text("odd/opaque/.wh..wh..opq", "")
		t.dir("odd/becomes-dir", 0o755)
		t.text("odd/becomes-dir/inner", "inner\n")
		t.text("odd/becomes-file", "a file\n")
		t.text("odd/link-target", "from the second layer\n") // a link's target is always in the link's own layer
		t.hardlink("odd/linked", "odd/link-target")
		t.file("check", 0o755, []byte(oddCheck))
	})
	nothing := c.layer(func(*tree) {})
	c.single(config{Config: v1.Config{Cmd: []string{"/check"}, WorkingDir: "/made/on/demand", StopSignal: "SIGUSR1", Volumes: port("/volume")}},
		[]v1.Layer{base, first, nothing, second, nothing}, "crid/oddities:1")
}

const oddCheck = `#!/bin/sh
bad=0
wrong() { echo "BAD: $*"; bad=1; }
cd /odd || exit 1
[ ! -e removed ] || wrong "a removed file is back"
[ ! -e opaque/below ] || wrong "an opaque folder shows what is below"
[ -f opaque/above ] || wrong "an opaque folder has lost its own file"
[ -d becomes-dir ] && [ -f becomes-dir/inner ] || wrong "a file did not become a folder"
[ -f becomes-file ] || wrong "a folder did not become a file"
[ "$(readlink link-to-dir)" = opaque ] || wrong "a symbolic link changed"
[ "$(cat linked 2>/dev/null)" = "from the second layer" ] && [ linked -ef link-target ] || wrong "no hard link"
[ -p fifo ] || wrong "no fifo"
[ -c null ] || wrong "no device"
[ -u setuid ] || wrong "no setuid bit"
[ "$(stat -c %u:%g owned)" = 1234:5678 ] || wrong "owner is $(stat -c %u:%g owned)"
find /long -type f | grep -q . || wrong "a long name is lost"
[ "$(pwd -P)" = /odd ] && [ -d /made/on/demand ] || wrong "no working directory"
[ $bad = 0 ] && echo "oddities: ok"
exit $bad
`

// heavy is the image of the pull benchmark: 40 layers, 400 files each, together about 160 MB of which compression takes a half. The
// content is pseudo-random, and the same everywhere.
func (c *catalogue) heavy() {
	const layers, files, size = 40, 400, 10 << 10
	random := rand.New(rand.NewPCG(2026, 37))
	all := []v1.Layer{c.layerAs(types.OCILayer, c.busybox)}
	for l := 1; l < layers; l++ {
		all = append(all, c.layerAs(types.OCILayer, func(t *tree) {
			for f := range files {
				content := make([]byte, size)
				for i := range content {
					content[i] = "0123456789abcdef"[random.IntN(16)]
				}
				t.file(fmt.Sprintf("data/%02d/%02d/file-%03d", l, f%20, f), 0o644, content)
			}
		}))
	}
	c.single(config{Config: v1.Config{Labels: label("layers")}}, all, "bench/layers:40")
}
