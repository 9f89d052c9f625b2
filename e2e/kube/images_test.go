//go:build e2e

package kube

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/images/kit"
)

func imageVolume(t *testing.T, s *space) {
	p := s.run("main", "containers:\n"+sleeper("main", "volumeMounts: [{name: image, mountPath: /image}, {name: image, mountPath: /part, subPath: odd/opaque}]")+
		"\nvolumes: [{name: image, image: {reference: 'registry.k8s.io/crid/oddities:1', pullPolicy: IfNotPresent}}]")
	if got := s.sh("main", "main", "cat /image/odd/link-target; ls /part; touch /image/new 2>/dev/null && echo written || echo read only"); got != "from the second layer\nabove\nread only" {
		t.Errorf("in the volume: %q", got)
	}
	s.unchanged(p)
}

// credentials: a registry that wants a password, a pull secret, and an image that is there but belongs to whom has the secret.
func credentials(t *testing.T, s *space) {
	programs, err := kit.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := programs.Catalogue(false)
	if err != nil {
		t.Fatal(err)
	}
	one, err := kit.Find(all, kit.Demo)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := kit.Serve(context.Background(), "127.0.0.1:0", []kit.Image{one}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "anna" || password != "secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := kit.WriteHosts(s.d.Home.Certs(), registry.Addr, registry.Addr); err != nil {
		t.Fatal(err)
	}
	image := registry.Addr + "/crid/demo:1"
	auth := base64.StdEncoding.EncodeToString([]byte("anna:secret"))
	docker := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"auths": {%q: {"auth": %q}}}`, registry.Addr, auth))
	s.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: pull}\ntype: kubernetes.io/dockerconfigjson\ndata: {.dockerconfigjson: " + docker + "}\n")
	create := func(name, policy, secrets string) {
		s.create(name, fmt.Sprintf("%scontainers:\n- {name: main, image: '%s', imagePullPolicy: %s}\n", secrets, image, policy))
	}
	waits := func(name string, reasons ...string) {
		t.Helper()
		s.until(name, "waiting", func(p *pod) error {
			if w := p.container("main").State.Waiting; w == nil || !strings.Contains(strings.Join(reasons, " "), w.Reason) {
				return errorf("%+v", p.container("main").State)
			}
			return nil
		})
	}
	const secret = "imagePullSecrets: [{name: pull}]\n"
	create("never", "Never", secret)
	waits("never", "ErrImageNeverPull")
	create("stranger", "Always", "")
	waits("stranger", "ErrImagePull", "ImagePullBackOff")
	create("owner", "Always", secret)
	s.ready("owner")
	create("guest", "IfNotPresent", "") // it is there now, but not for everybody
	waits("guest", "ErrImagePull", "ImagePullBackOff")
	s.ready("never")
	time.Sleep(time.Second)
	waits("stranger", "ErrImagePull", "ImagePullBackOff")
}
