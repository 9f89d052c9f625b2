package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"
	"time"
)

// sliceStop bounds one call of systemctl; it answers in milliseconds unless
// systemd hangs.
const sliceStop = 10 * time.Second

// notLoaded is systemctl's exit status for a unit that it does not know (LSB:
// "program is not installed").
const notLoaded = 5

// isSlice tells whether the cgroup is a slice on a machine where systemd runs.
// A slice is systemd's object: the directory alone is made again when anything
// near it changes.
func (c *Cgroup) isSlice() bool {
	return strings.HasSuffix(c.path, ".slice") && c.t == theTree() && AutoDriver() == Systemd
}

// stopSlice has systemd forget a slice that nothing is in any more. Systemd
// makes slices for the scopes in them, but never ends one by itself.
func (c *Cgroup) stopSlice(ctx context.Context) error {
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		return nil // without it nothing is left but a unit's name in systemd's memory
	}
	ctx, cancel := context.WithTimeout(ctx, sliceStop)
	defer cancel()
	cmd := exec.CommandContext(ctx, systemctl, "--quiet", "--no-ask-password", "stop", "--", path.Base(c.path))
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == notLoaded {
			return nil
		}
		return fmt.Errorf("have systemd stop %s: %w: %.200s", path.Base(c.path), err, strings.TrimSpace(said.String()))
	}
	return nil
}
