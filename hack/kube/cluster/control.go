package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/hack/kube/proc"
)

// Control is a control plane: etcd, API server, controller manager, scheduler. The zero values of its options are filled in by Start, and
// it can be kept as JSON between programs.
type Control struct {
	Dir     string              // absolute; gets pki, etcd and logs
	Address string              // where the API server listens, default 127.0.0.1
	NetNS   string              // path of the network namespace that all of it runs in; empty is the machine's
	Ports   []int               // etcd, its peers, API server, controller manager, scheduler
	Args    map[string][]string // more arguments, by program
}

// Bin is the path of one of Kubernetes' programs.
func Bin(name string) (string, error) {
	path, err := project.Bin("kube/" + name)
	if err != nil {
		return "", fmt.Errorf("%w (hack/kube/build.sh %s)", err, name)
	}
	return path, nil
}

// PKI of the cluster. Its authorities are "ca" and, for what stands in front of extension servers, "proxy-ca".
func (c *Control) PKI() PKI { return PKI{Dir: filepath.Join(c.Dir, "pki")} }

// Server is the API server's URL.
func (c *Control) Server() string {
	return "https://" + net.JoinHostPort(c.Address, strconv.Itoa(c.Ports[2]))
}

// Admin is the path of a kubeconfig that may do everything.
func (c *Control) Admin() string { return filepath.Join(c.PKI().Dir, "admin.kubeconfig") }

var servers = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// Start starts what does not run and waits until the API serves.
func (c *Control) Start(ctx context.Context) error {
	if c.Address == "" {
		c.Address = "127.0.0.1"
	}
	if len(c.Ports) == 0 {
		ports, err := Ports(5)
		if err != nil {
			return err
		}
		c.Ports = ports
	}
	if err := c.certify(); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	for _, name := range servers {
		if err := c.start(ctx, name); err != nil {
			return err
		}
	}
	_, err := c.await(ctx, time.Minute, "get", "serviceaccount", "default") // without it no pod is admitted
	return err
}

func (c *Control) certify() error {
	p := c.PKI()
	hosts := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", c.Address, "10.232.0.1"}
	errs := []error{p.Authority("ca"), p.Authority("proxy-ca"), p.ServiceAccountKeys(),
		p.Issue("ca", "apiserver", Identity{Name: "kube-apiserver", Hosts: hosts}),
		p.Issue("ca", "apiserver-kubelet", Identity{Name: "kube-apiserver-kubelet-client", Organizations: []string{"system:masters"}}),
		p.Issue("proxy-ca", "front-proxy", Identity{Name: "front-proxy-client"})}
	for name, who := range map[string]Identity{
		"admin":                   {Name: "admin", Organizations: []string{"system:masters"}},
		"kube-controller-manager": {Name: "system:kube-controller-manager"},
		"kube-scheduler":          {Name: "system:kube-scheduler"},
	} {
		errs = append(errs, p.Issue("ca", name, who))
		_, err := p.Kubeconfig(name, c.Server(), "ca")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Control) start(ctx context.Context, name string) error {
	if p, err := proc.Find(c.Dir, name); err == nil && p.Alive() {
		return nil
	}
	program, err := Bin(name)
	if err != nil {
		return err
	}
	argv := append(append([]string{program}, c.arguments(name)...), c.Args[name]...)
	p, err := proc.Start(proc.Spec{Dir: c.Dir, Name: name, Argv: argv, NetNS: c.NetNS})
	if err != nil {
		return err
	}
	if name == "kube-apiserver" {
		return p.WaitFor(ctx, 2*time.Minute, func(ctx context.Context) error {
			_, err := c.Kubectl(ctx, nil, "get", "--raw", "/readyz")
			return err
		})
	}
	return nil
}

func (c *Control) arguments(name string) []string {
	p, port := c.PKI(), func(n int) string { return strconv.Itoa(c.Ports[n]) }
	config := filepath.Join(p.Dir, name+".kubeconfig")
	switch name {
	case "etcd":
		client, peer := "http://127.0.0.1:"+port(0), "http://127.0.0.1:"+port(1)
		return []string{"--name=e", "--data-dir=" + filepath.Join(c.Dir, "etcd"), "--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=e=" + peer, "--unsafe-no-fsync"}
	case "kube-apiserver":
		return []string{"--bind-address=" + c.Address, "--secure-port=" + port(2), "--etcd-servers=http://127.0.0.1:" + port(0), "--endpoint-reconciler-type=none",
			"--service-cluster-ip-range=10.232.0.0/24", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			"--client-ca-file=" + p.Cert("ca"), "--tls-cert-file=" + p.Cert("apiserver"), "--tls-private-key-file=" + p.Key("apiserver"),
			"--kubelet-client-certificate=" + p.Cert("apiserver-kubelet"), "--kubelet-client-key=" + p.Key("apiserver-kubelet"),
			"--kubelet-certificate-authority=" + p.Cert("ca"), "--kubelet-preferred-address-types=Hostname",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + filepath.Join(p.Dir, "sa.pub"),
			"--service-account-signing-key-file=" + p.Key("sa"), "--requestheader-client-ca-file=" + p.Cert("proxy-ca"),
			"--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
			"--proxy-client-cert-file=" + p.Cert("front-proxy"), "--proxy-client-key-file=" + p.Key("front-proxy")}
	case "kube-controller-manager":
		return []string{"--bind-address=127.0.0.1", "--secure-port=" + port(3), "--kubeconfig=" + config, "--authentication-kubeconfig=" + config,
			"--authorization-kubeconfig=" + config, "--leader-elect=false", "--use-service-account-credentials",
			"--service-account-private-key-file=" + p.Key("sa"), "--root-ca-file=" + p.Cert("ca"),
			"--cluster-signing-cert-file=" + p.Cert("ca"), "--cluster-signing-key-file=" + p.Key("ca")}
	default: // kube-scheduler
		return []string{"--bind-address=127.0.0.1", "--secure-port=" + port(4), "--kubeconfig=" + config, "--authentication-kubeconfig=" + config,
			"--authorization-kubeconfig=" + config, "--leader-elect=false"}
	}
}

// Stop ends all of it. It may be called twice.
func (c *Control) Stop() error {
	var errs []error
	for n := len(servers) - 1; n >= 0; n-- {
		if p, err := proc.Find(c.Dir, servers[n]); err == nil {
			errs = append(errs, p.Stop(30*time.Second))
		}
	}
	return errors.Join(errs...)
}

// Command is kubectl with these arguments as the administrator, not yet started.
func (c *Control) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	program, err := Bin("kubectl")
	if err != nil {
		return nil, err
	}
	if c.NetNS != "" {
		args = append([]string{"--net=" + c.NetNS, "--", program}, args...)
		program = "nsenter"
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Admin(), "KUBECACHEDIR="+filepath.Join(c.Dir, "kubectl-cache"))
	cmd.WaitDelay = 5 * time.Second
	return cmd, nil
}

// Kubectl runs kubectl as the administrator and gives what it wrote to standard output. An error tells what it wrote to standard error.
func (c *Control) Kubectl(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd, err := c.Command(ctx, args...)
	if err != nil {
		return "", err
	}
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

func (c *Control) await(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		out, err := c.Kubectl(ctx, nil, args...)
		if err == nil || ctx.Err() != nil {
			return out, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}
