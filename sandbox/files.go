package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/store"
)

// makeFiles makes the pod's folder, its bundle and the files that its
// containers have in /etc.
func (p *Pods) makeFiles(v *store.Pod, w *plan.Pod, h Handler) error {
	dir := p.Dir(v.ID)
	perm := os.FileMode(0o700)
	if w.UserNS != nil {
		perm = 0o711
	}
	if err := os.MkdirAll(dir, perm); err != nil {
		return fmt.Errorf("make pod folder: %w", err)
	}
	if err := os.Chmod(dir, perm); err != nil {
		return fmt.Errorf("make pod folder: %w", err)
	}
	if w.UserNS != nil {
		if err := container.LetPass(p.StateDir, filepath.Dir(dir)); err != nil {
			return err
		}
	}
	if err := p.etcFiles(dir, w); err != nil {
		return err
	}
	if !w.HostIPC {
		if err := p.mountShm(filepath.Join(dir, "shm"), w.UserNS, w.MountLabel); err != nil {
			return err
		}
	}
	if err := failpoint.At("p7"); err != nil {
		return err
	}
	if err := p.writeBundle(v, w, h); err != nil {
		return err
	}
	return failpoint.At("p8")
}

// writeBundle writes the pod's config.json: the sandbox process's, or what
// little a shim without one wants to read.
func (p *Pods) writeBundle(v *store.Pod, w *plan.Pod, h Handler) error {
	spec := &oci.Spec{Version: oci.Version, Annotations: map[string]string{
		"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": v.ID}}
	if v.Pause {
		var err error
		if spec, err = p.pauseSpec(v, w, h); err != nil {
			return err
		}
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(p.Dir(v.ID), "config.json"), b, 0o600); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// etcFiles writes hostname, hosts and resolv.conf. They are readable for
// everybody, for they are the container's /etc.
func (p *Pods) etcFiles(dir string, w *plan.Pod) error {
	host := w.Hostname
	if host == "" {
		var err error
		if host, err = os.Hostname(); err != nil {
			return fmt.Errorf("read the node's hostname: %w", err)
		}
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the node's hosts file: %w", err)
	}
	resolv, err := resolvConf(w.DNS)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"hostname": []byte(host + "\n"), "hosts": hosts, "resolv.conf": resolv} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { //nolint:gosec // the container's users read them
			return fmt.Errorf("write pod files: %w", err)
		}
	}
	return nil
}

func resolvConf(d *plan.DNS) ([]byte, error) {
	if d == nil {
		b, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read the node's resolv.conf: %w", err)
		}
		return b, nil
	}
	var b bytes.Buffer
	if len(d.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", joined(d.Searches))
	}
	for _, s := range d.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", joined(d.Options))
	}
	return b.Bytes(), nil
}
