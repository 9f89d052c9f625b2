package kit

import "strings"

// Users and groups of the busybox image, as the real one has them: tests refer to some by name.
var (
	passwd = lines("root:x:0:0:root:/root:/bin/sh", "daemon:x:1:1:daemon:/usr/sbin:/bin/false", "bin:x:2:2:bin:/bin:/bin/false",
		"sys:x:3:3:sys:/dev:/bin/false", "mail:x:8:8:mail:/var/spool/mail:/bin/false", "www-data:x:33:33:www-data:/var/www:/bin/false",
		"operator:x:37:37:Operator:/var:/bin/false", "nobody:x:65534:65534:nobody:/home:/bin/false")
	group = lines("root:x:0:", "daemon:x:1:", "bin:x:2:", "sys:x:3:", "adm:x:4:", "tty:x:5:", "disk:x:6:", "mail:x:8:", "wheel:x:10:root",
		"www-data:x:33:", "operator:x:37:", "users:x:100:", "nobody:x:65534:")
)

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }

// busybox is the root of the busybox image: one binary, of which every applet is a hard link. Symbolic links would not do: a test
// that masks /bin/ls would mask what it points to, and with it every other applet.
func (p *Programs) busybox(t *tree) {
	for _, d := range []string{"bin", "dev", "etc", "home", "proc", "sys", "usr/bin", "usr/sbin", "var/spool/mail", "var/www"} {
		t.dir(d, 0o755)
	}
	t.dir("root", 0o700)
	t.dir("tmp", 0o1777)
	t.program("bin/busybox", p.path("busybox"), 0o755)
	for _, a := range p.applets {
		if a != "busybox" {
			t.hardlink("bin/"+a, "bin/busybox")
		}
	}
	t.hardlink("usr/bin/env", "bin/busybox")
	t.text("etc/passwd", passwd)
	t.text("etc/group", group)
}

// nginx goes over busybox.
func (p *Programs) nginx(t *tree) {
	t.dir("run", 0o755)
	t.symlink("var/run", "/run")
	t.dirOwned("var/cache/nginx", 0o755, 101, 101)
	t.program("usr/sbin/nginx", p.path("web"), 0o755)
	t.text("etc/nginx/conf.d/default.conf", nginxConf("80"))
	t.text("usr/share/nginx/html/index.html", "<h1>Welcome to nginx!</h1>\n")
	t.symlink("var/log/nginx/access.log", "/dev/stdout")
	t.symlink("var/log/nginx/error.log", "/dev/stderr")
	t.text("etc/passwd", passwd+"nginx:x:101:101:nginx user:/nonexistent:/bin/false\n")
	t.text("etc/group", group+"nginx:x:101:\n")
}

func nginxConf(port string) string { return "server {\n    listen " + port + ";\n}\n" }

// httpd goes over busybox.
func (p *Programs) httpd(t *tree) {
	t.dirOwned("usr/local/apache2/logs", 0o755, 33, 33)
	t.program("usr/local/apache2/bin/httpd", p.path("web"), 0o755)
	t.text("usr/local/apache2/htdocs/index.html", "<html><body><h1>It works!</h1></body></html>\n")
	t.file("usr/local/bin/httpd-foreground", 0o755, []byte("#!/bin/sh\nset -e\nrm -f /usr/local/apache2/logs/httpd.pid\nexec httpd -DFOREGROUND \"$@\"\n"))
}
