package kit

import (
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Agnhost is the image that Kubernetes' own suites use most: one program with a hundred sub-commands (netexec, pause, …).
const Agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.66.1"

// KubeCatalogue is Catalogue and the images that Kubernetes' own node suite names, in the versions that Kubernetes 1.37 names. bin is the folder
// in which agnhost and nnp lie, built from Kubernetes' module (hack/kube/build.sh).
func (p *Programs) KubeCatalogue(bin string) ([]Image, error) {
	ours, err := p.Catalogue(false)
	if err != nil {
		return nil, err
	}
	c := &catalogue{Programs: p}
	c.kube(bin)
	if c.err != nil {
		return nil, c.err
	}
	return append(ours, c.images...), nil
}

// kube enters single manifests, and each with a label, so that no two names are of one image: the suite compares the image in a
// container's status with the one in the pod, and a runtime answers one of the names that an image has.
func (c *catalogue) kube(bin string) {
	base := c.layer(c.busybox)
	enter := func(cfg v1.Config, name string, layers ...v1.Layer) {
		cfg.Labels = label(name)
		c.single(config{Config: cfg}, append([]v1.Layer{base}, layers...), e2eImages+name)
	}
	enter(v1.Config{Cmd: []string{"sh"}}, "busybox:1.37.0-2", c.layer(func(t *tree) { t.program("bin/sh", c.path("sh"), 0o755) }))
	enter(v1.Config{Cmd: []string{"sh"}}, "busybox:1.36.1-1")
	enter(v1.Config{Cmd: []string{"sh"}, User: "1234"}, "nonroot:1.5")
	enter(v1.Config{Cmd: []string{"sh"}}, "ipc-utils:1.4")
	enter(v1.Config{Cmd: []string{"sh"}}, "glibc-dns-testing:2.1.1", c.layer(func(t *tree) { t.file("bin/hostname", 0o755, []byte(hostnameScript)) }))
	nnp := c.layer(func(t *tree) { t.program("usr/local/bin/nnp", filepath.Join(bin, "nnp"), 0o6755) })
	enter(v1.Config{Cmd: []string{"nnp"}}, "nonewprivs:1.4", nnp)
	web := c.layer(c.nginx)
	for _, v := range []string{"1.27.0-2", "1.28.0-2"} {
		enter(v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, StopSignal: "SIGQUIT"}, "nginx:"+v, web)
	}

	cert, key, err := selfSigned("localhost")
	if err != nil && c.err == nil {
		c.err = err
	}
	agnhost := c.layer(func(t *tree) {
		t.program("agnhost", filepath.Join(bin, "agnhost"), 0o755)
		t.symlink("agnhost-2", "agnhost")
		t.dir("uploads", 0o755)
		t.file("usr/bin/curl", 0o755, []byte(curlScript))
		t.file("bin/bash", 0o755, []byte("#!/bin/sh\nexec /bin/sh \"$@\"\n"))
		t.text("localhost.crt", cert)
		t.text("localhost.key", key)
		t.text("etc/passwd", passwd+"user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n")
		t.text("etc/group", group+"user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n")
		t.text("etc/os-release", "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.21.0\nPRETTY_NAME=\"Alpine Linux v3.21\"\n")
	})
	for _, v := range []string{"2.66.1", "2.55"} {
		enter(v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}, "agnhost:"+v, agnhost)
	}
	kitten := c.layer(func(t *tree) { t.text("data.json", "{\"image\": \"kitten.jpg\"}\n") })
	enter(v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}}, "kitten:1.8", agnhost, kitten)
}

// curlScript does what the suite asks of curl: one URL, silently, within a time.
const curlScript = `#!/bin/sh
limit=30
while [ $# -gt 1 ]; do
	case $1 in
	--max-time) limit=$2; shift ;;
	--connect-timeout | -o | -H) shift ;;
	esac
	shift
done
exec wget -q -O - -T "$limit" "$1"
`

// hostnameScript adds "-f" as the C library's resolver answers it: the first name beside the host's own in /etc/hosts. A static busybox has no
// resolver that reads that file.
const hostnameScript = `#!/bin/sh
name=$(cat /proc/sys/kernel/hostname)
[ "$1" = -f ] || { echo "$name"; exit; }
awk -v h="$name" '{ for (i = 2; i <= NF; i++) if ($i == h) { print $2; found = 1; exit } } END { if (!found) print h }' /etc/hosts
`
