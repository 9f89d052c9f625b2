package cni

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// Check asks the plugins whether the attachment is still as it was made
// (CHECK, CNI 0.4.0 and above; older networks and those that disable it are
// always well).
func (n *Networks) Check(ctx context.Context, saved []byte) error {
	r, list, err := parseRecord(saved)
	if err != nil {
		return fmt.Errorf("check network: %w", err)
	}
	if !speaks(list, "0.4.0") || list.DisableCheck {
		return nil
	}
	prev, err := previous(list, r)
	if err != nil {
		return fmt.Errorf("check network %q: %w", list.Name, err)
	}
	if prev == nil {
		return fmt.Errorf("check network %q: the pod was never attached: %w", list.Name, errdefs.ErrFailedPrecondition)
	}
	unlock, err := n.lock(ctx, r.ContainerID)
	if err != nil {
		return fmt.Errorf("check network %q: %w", list.Name, err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	for _, p := range list.Plugins {
		conf, err := configure(list, p, prev, r.CapabilityArgs)
		if err == nil {
			err = n.run(ctx, p.Network.Type, "CHECK", conf, r)
		}
		if err != nil {
			return fmt.Errorf("check network %q: %w", list.Name, err)
		}
	}
	return nil
}
