package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/crid-project/crid/failpoint"
)

// Del takes a pod off the network: a nil error means that every plugin has
// released what it had for it. It works from saved, without (or if it cannot be
// read) from the copy that [Networks.Add] keeps, and only without either from
// the network as configured now; with no network at all there is nothing to
// release. All plugins are
// called, in reverse order, also when one fails. Idempotent.
func (n *Networks) Del(ctx context.Context, a Attachment, saved []byte) error {
	records, err := n.recordsFor(a, saved)
	if err != nil {
		return fmt.Errorf("detach pod from network: %w", err)
	}
	var errs []error
	for _, data := range records {
		errs = append(errs, n.delRecord(ctx, data))
	}
	return errors.Join(errs...)
}

func (n *Networks) recordsFor(a Attachment, saved []byte) ([][]byte, error) {
	if len(saved) > 0 {
		r, _, err := parseRecord(saved)
		if err == nil && a.ID != "" && r.ContainerID != a.ID {
			return nil, fmt.Errorf("the record is of pod %s, not of %s: %w", r.ContainerID, a.ID, errdefs.ErrInvalidArgument)
		}
		if err == nil {
			return [][]byte{saved}, nil
		}
		n.log.Warn("network record cannot be read; trying without it", "pod", a.ID, "error", err)
	}
	var kept [][]byte
	for _, r := range n.kept() {
		if r.ContainerID == a.ID {
			data, err := r.marshal()
			if err != nil {
				return nil, err
			}
			kept = append(kept, data)
		}
	}
	if len(kept) > 0 {
		return kept, nil
	}
	intent, err := n.Prepare(a)
	if errdefs.IsFailedPrecondition(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return [][]byte{intent}, nil
}

func (n *Networks) delRecord(ctx context.Context, data []byte) error {
	r, list, err := parseRecord(data)
	if err != nil {
		return fmt.Errorf("detach pod from network: %w", err)
	}
	unlock, err := n.lock(ctx, r.ContainerID)
	if err != nil {
		return fmt.Errorf("detach pod from network: %w", err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	if err := n.del(ctx, list, r, len(list.Plugins)); err != nil {
		return fmt.Errorf("detach pod from network %q: %w", list.Name, err)
	}
	n.forget(r)
	n.gate.released(r.ContainerID)
	return nil
}

// del runs DEL for the first `reached` plugins of the chain, last one first.
func (n *Networks) del(ctx context.Context, list *libcni.NetworkConfigList, r *record, reached int) error {
	prev, err := previous(list, r)
	if err != nil {
		// A result that cannot be read must not keep a pod from going for ever.
		n.log.Warn("network result is passed over", "pod", r.ContainerID, "error", err)
	}
	return n.inNamespace(list, r, func(path string) error {
		call := *r
		call.NetNS = path
		return n.delChain(ctx, list, &call, prev, reached)
	})
}

func (n *Networks) delChain(ctx context.Context, list *libcni.NetworkConfigList, r *record, prev types.Result, reached int) error {
	var errs []error
	for i := reached - 1; i >= 0; i-- {
		p := list.Plugins[i]
		conf, err := configure(list, p, prev, r.CapabilityArgs)
		if err == nil && !n.idle(p, r) {
			err = n.run(ctx, p.Network.Type, "DEL", conf, r)
		}
		if err == nil {
			err = failpoint.At("n3")
		}
		if errors.Is(err, ErrPluginMissing) && prev == nil {
			// No ADD ever came to its end: a plugin that is not there was most
			// likely the reason, and has nothing to release.
			n.log.Warn("plugin is missing and passed over", "plugin", p.Network.Type, "pod", r.ContainerID)
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// previous is the result that DEL and CHECK are given (since CNI 0.4.0).
func previous(list *libcni.NetworkConfigList, r *record) (types.Result, error) {
	if !speaks(list, "0.4.0") {
		return nil, nil
	}
	res, err := r.result()
	if err != nil || res == nil {
		return nil, err
	}
	res, err = res.GetAsVersion(list.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("convert network result: %w", err)
	}
	return res, nil
}
