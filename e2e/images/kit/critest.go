package kit

import (
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	e2eImages = "e2e-test-images/"
	criTools  = "k8s-staging-cri-tools/"
)

func label(name string) map[string]string { return map[string]string{"crid.test-image": name} }

func port(p string) map[string]struct{} { return map[string]struct{}{p: {}} }

// servers are the images of the validation suite that have something to say over the network.
func (c *catalogue) servers(base v1.Layer) {
	web := c.layer(c.nginx)
	nginx := config{Config: v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, ExposedPorts: port("80/tcp"), StopSignal: "SIGTERM",
		Env: []string{pathEnv, "NGINX_VERSION=1.14.2"}}}
	c.multi(nginx, []v1.Layer{base, web}, e2eImages+"nginx:1.14-2")

	// Its sister for the host's network listens on a port of its own, and stops on another signal.
	hostnet := c.layer(func(t *tree) { t.text("etc/nginx/conf.d/default.conf", nginxConf("12003")) })
	nginx.StopSignal = "SIGQUIT"
	c.single(nginx, []v1.Layer{base, web, hostnet}, criTools+"hostnet-nginx-"+runtime.GOARCH+":latest")

	c.multi(config{Config: v1.Config{Cmd: []string{"httpd-foreground"}, ExposedPorts: port("80/tcp"), StopSignal: "SIGWINCH", WorkingDir: "/usr/local/apache2",
		Env: []string{"PATH=/usr/local/apache2/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HTTPD_PREFIX=/usr/local/apache2"}}},
		[]v1.Layer{base, c.layer(c.httpd)}, e2eImages+"httpd:2.4.39-4")
}

// small are the other images of the validation suite.
func (c *catalogue) small(base v1.Layer) {
	// The label makes each an image of its own, as in the world: the suite counts the tags of an image.
	for _, n := range []string{e2eImages + "busybox:1.29-2", "library/busybox:latest", "library/busybox:1"} {
		c.multi(config{Config: v1.Config{Labels: label(n)}}, []v1.Layer{base}, n)
	}
	pause := c.layer(func(t *tree) { t.program("pause", c.path("pause"), 0o755) })
	for _, v := range []string{"3.9", "3.10", "3.10.1", "3.10.2", "latest"} {
		c.multi(config{Config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535", Labels: label("pause " + v)}}, []v1.Layer{pause}, "pause:"+v)
	}
	nnp := c.layer(func(t *tree) { t.program("nnp", c.path("nnp"), 0o6755) })
	c.multi(config{Config: v1.Config{Entrypoint: []string{"/nnp"}}}, []v1.Layer{base, nnp}, e2eImages+"nonewprivs:1.3")

	// images that name their user
	for name, user := range map[string]string{
		"test-image-user-uid": "1002", "test-image-user-uid-group": "1003:1004",
		"test-image-user-username": "www-data", "test-image-user-username-group": "www-data:1004",
	} {
		c.multi(config{Config: v1.Config{User: user}}, []v1.Layer{base}, criTools+name+":latest")
	}
	groups := c.layer(func(t *tree) {
		t.text("etc/passwd", passwd+"default-user:x:1000:1000:Linux User,,,:/home/default-user:/bin/sh\n")
		t.text("etc/group", group+"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
		t.dirOwned("home/default-user", 0o2755, 1000, 1000)
	})
	c.multi(config{Config: v1.Config{User: "1000"}}, []v1.Layer{base, groups}, criTools+"test-image-predefined-group:latest")

	// images that are only pulled, listed and removed: busybox and one file, so that each is its own
	for _, n := range []string{"test-image-1", "test-image-2", "test-image-3", "test-image-latest"} {
		c.marked(base, n, criTools+n+":latest")
	}
	c.marked(base, "same-image", criTools+"test-image-tags:1", criTools+"test-image-tags:2", criTools+"test-image-tags:3")
	c.marked(base, "tag test", criTools+"test-image-tag:test")
	c.marked(base, "tag all", criTools+"test-image-tag:all")

	// The suite pins one image by a digest that nobody can make again; see PatchDigest. One manifest, not a list: the suite wants
	// exactly one digest, and a runtime may well know a list's image by two.
	c.single(config{}, []v1.Layer{base, c.layer(func(t *tree) { t.text("test-image-digest", "") })}, criTools+"test-image-digest:single")
}

func (c *catalogue) marked(base v1.Layer, mark string, names ...string) {
	c.multi(config{}, []v1.Layer{base, c.layer(func(t *tree) { t.text("mark", mark+"\n") })}, names...)
}
