package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/project"
)

// handlers of RuntimeClass that the suite expects beside the default one.
func handlerTable() (string, error) {
	bin, err := project.Bin("")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("[runtimes.test-handler]\npath = %q\noptions = { BinaryName = %q }\n", filepath.Join(bin, "containerd-shim-runc-v2"), filepath.Join(bin, "runc")), nil
}

// peer is containerd with the handler.
type peer struct{ harness.Containerd }

// Prepare appends to the configuration.
func (p peer) Prepare(h *harness.Home) (string, []string, error) {
	program, args, err := p.Containerd.Prepare(h)
	if err != nil {
		return "", nil, err
	}
	bin, err := project.Bin("")
	if err != nil {
		return "", nil, err
	}
	f, err := os.OpenFile(h.Config(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, `[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.test-handler]
runtime_type = 'io.containerd.runc.v2'
runtime_path = '%[1]s/containerd-shim-runc-v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.test-handler.options]
BinaryName = '%[1]s/runc'
Root = '%[2]s/runc'
SystemdCgroup = false
`, bin, h.Dir)
	return program, args, err
}

// insecure is for the suite's own API server, whose certificate nobody has signed.
var insecure = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // see above
