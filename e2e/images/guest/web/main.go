// Web is the program in the test images that pose as nginx and as Apache's httpd: it does what the CRI validation suite, the
// tests of this project and a person with curl can see of them. Which of the two it is depends on the name it is run by.
//
// As nginx: the process is titled "nginx: master process ...", its name is nginx, /var/run/nginx.pid holds its pid, it listens on
// the port that /etc/nginx/conf.d/default.conf gives, and logs requests through /var/log/nginx/access.log.
// As httpd: notices on standard error that contain the word "httpd", port 80, requests logged to standard output.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	var err error
	if filepath.Base(os.Args[0]) == "httpd" {
		err = httpd()
	} else {
		err = nginx()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve answers every request with body until a signal of stop comes.
func serve(addr, server, body string, access io.Writer, ready func() error, stop ...os.Signal) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, stop...)
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: bind() to %s failed: %w", server, addr, err)
	}
	if err := ready(); err != nil {
		return fmt.Errorf("%s: %w", server, err)
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", server)
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, body)
		fmt.Fprintf(access, "%s - - [%s] \"%s %s %s\" 200 %d\n", r.RemoteAddr, time.Now().Format("02/Jan/2006:15:04:05 -0700"), r.Method, r.URL, r.Proto, len(body))
	}
	srv := &http.Server{Handler: http.HandlerFunc(handler), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("%s: %w", server, err)
	case <-asked:
		return srv.Close()
	}
}

const (
	nginxPage = "<!DOCTYPE html>\n<html>\n<head><title>Welcome to nginx!</title></head>\n<body><h1>Welcome to nginx!</h1></body>\n</html>\n"
	httpdPage = "<html><body><h1>It works!</h1></body></html>\n"
	nginxConf = "/etc/nginx/conf.d/default.conf"
	nginxPid  = "/var/run/nginx.pid"
	httpdPid  = "/usr/local/apache2/logs/httpd.pid"
)

func nginx() error {
	if !strings.HasPrefix(os.Args[0], "nginx: ") {
		// A process's title is its argument list: run ourselves again, as the same process, under another one.
		title := "nginx: master process " + strings.Join(append([]string{"nginx"}, os.Args[1:]...), " ")
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("nginx: %w", err)
		}
		return fmt.Errorf("nginx: exec: %w", syscall.Exec(exe, []string{title}, os.Environ()))
	}
	access, err := os.OpenFile("/var/log/nginx/access.log", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("nginx: %w", err)
	}
	port := "80"
	if conf, err := os.ReadFile(nginxConf); err == nil {
		if m := regexp.MustCompile(`(?m)^\s*listen\s+(\d+)`).FindSubmatch(conf); m != nil {
			port = string(m[1])
		}
	}
	defer os.Remove(nginxPid)
	return serve(":"+port, "nginx/1.14.2", nginxPage, access, func() error {
		return os.WriteFile(nginxPid, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644)
	}, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
}

func httpd() error {
	notice := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "[%s] [httpd:notice] [pid %d] %s\n", time.Now().Format(time.StampMicro), os.Getpid(), fmt.Sprintf(format, args...))
	}
	defer notice("httpd: shutting down")
	return serve(":80", "Apache/2.4.39 (Unix)", httpdPage, os.Stdout, func() error {
		notice("httpd: Apache/2.4.39 (Unix) configured -- resuming normal operations")
		return os.WriteFile(httpdPid, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644)
	}, syscall.SIGTERM, syscall.SIGINT, syscall.SIGWINCH)
}
