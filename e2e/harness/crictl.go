package harness

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/crid-project/crid/e2e/project"
)

// Crictl runs crictl against the runtime and gives its standard output. What it writes to standard error is part of the error.
func (c *CRI) Crictl(ctx context.Context, args ...string) (string, error) {
	program, err := project.Bin("crictl")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	endpoint := "unix://" + c.Socket
	cmd := exec.CommandContext(ctx, program, append([]string{"--config", "/dev/null", "--timeout", "60s", "--runtime-endpoint", endpoint, "--image-endpoint", endpoint}, args...)...)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("crictl %v: %w: %s", args, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}
