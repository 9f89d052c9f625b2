package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
)

// ErrDelOwed is joined to the error of an Add whose own clean-up failed: the
// caller still owes a [Networks.Del] with the record that it has.
var ErrDelOwed = errors.New("the failed attachment could not be undone yet")

// Prepare freezes what an ADD for a will do: the network as configured now and
// the pod's arguments. The caller writes the answer to its own record before it
// calls [Networks.Add] with it; should it die in between, DEL works from it.
func (n *Networks) Prepare(a Attachment) (intent []byte, err error) {
	list, err := n.network()
	if err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	if err := a.validate(); err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	return newRecord(list, n.cfg.IfName, a).marshal()
}

// Add attaches a pod as intent says ([Networks.Prepare]; nil: as configured
// now). A nil error means that every plugin of the network did its part and the
// interface has an address; Result.Saved belongs into the pod's record before
// anything else is done. On an error DEL has been called, with the same
// configuration; if that failed too, the error is also [ErrDelOwed]. Not
// idempotent: a second Add of one pod is refused by most plugins.
func (n *Networks) Add(ctx context.Context, a Attachment, intent []byte) (_ *Result, err error) {
	if intent == nil {
		if intent, err = n.Prepare(a); err != nil {
			return nil, err
		}
	}
	r, list, err := parseRecord(intent)
	if err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	if a.ID != "" && a.ID != r.ContainerID {
		return nil, fmt.Errorf("attach pod %s to network: the intent is of pod %s: %w", a.ID, r.ContainerID, errdefs.ErrInvalidArgument)
	}
	unlock, err := n.lock(ctx, r.ContainerID)
	if err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	defer unlock()
	if err := n.gate.begin(ctx, r.ContainerID); err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	defer n.gate.end()
	n.keep(r, intent)

	addCtx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	res, reached, err := n.add(addCtx, list, r)
	cancel()
	if err == nil {
		r.Result = res
		var out *Result
		if out, err = n.resultOf(r); err == nil {
			n.keep(r, out.Saved)
			return out, nil
		}
	}
	err = fmt.Errorf("attach pod to network %q: %w", list.Name, err)
	// The caller's context may be over; what was begun is undone all the same.
	delCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.cfg.Timeout)
	defer cancel()
	if undo := n.del(delCtx, list, r, reached); undo != nil {
		return nil, fmt.Errorf("%w; %w: %w", err, ErrDelOwed, undo)
	}
	n.forget(r)
	n.gate.released(r.ContainerID)
	return nil, err
}

// add runs the chain. reached is how many plugins were begun.
func (n *Networks) add(ctx context.Context, list *libcni.NetworkConfigList, r *record) (out json.RawMessage, reached int, err error) {
	var prev types.Result
	for i, p := range list.Plugins {
		conf, err := configure(list, p, prev, r.CapabilityArgs)
		if err != nil {
			return nil, i, err
		}
		if n.idle(p, r) && prev != nil {
			continue
		}
		answer, err := n.ask(ctx, p.Network.Type, "ADD", conf, r)
		if errors.Is(err, ErrPluginMissing) {
			return nil, i, err
		}
		if err != nil {
			return nil, i + 1, err
		}
		if prev, err = parseAnswer(list, answer); err != nil {
			return nil, i + 1, &PluginError{Plugin: p.Network.Type, Verb: "ADD", Msg: "gave an answer that is no CNI result", Details: err.Error()}
		}
	}
	out, err = json.Marshal(prev)
	if err != nil {
		return nil, len(list.Plugins), fmt.Errorf("encode network result: %w", err)
	}
	return out, len(list.Plugins), nil
}

// idle is true for a plugin of the standard set that would only pass the result
// on: port mappings or limits that this pod does not have. It must be installed
// all the same, so that a node is not found incomplete by the first pod that
// needs it.
func (n *Networks) idle(p *libcni.PluginConfig, r *record) bool {
	if !n.cfg.SkipIdle || p.Network.Type != "portmap" {
		return false
	}
	_, asked := r.CapabilityArgs["portMappings"]
	if asked || !p.Network.Capabilities["portMappings"] {
		return false
	}
	_, err := n.find(p.Network.Type)
	return err == nil
}

// parseAnswer reads a plugin's result. One without a version is of the
// network's version (CNI issue 895).
func parseAnswer(list *libcni.NetworkConfigList, answer []byte) (types.Result, error) {
	if len(bytes.TrimSpace(answer)) == 0 {
		return nil, errors.New("it is empty")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(answer, &fields); err != nil {
		return nil, fmt.Errorf("%w: %q", err, clip(string(answer[:min(len(answer), 128)])))
	}
	if fields == nil {
		return nil, errors.New("it is null")
	}
	var given string
	if raw, ok := fields["cniVersion"]; ok {
		if err := json.Unmarshal(raw, &given); err != nil {
			return nil, fmt.Errorf("cniVersion: %w", err)
		}
	}
	if given == "" {
		given = list.CNIVersion
		if given == "" {
			given = "0.1.0"
		}
		fields["cniVersion"], _ = json.Marshal(given)
		answer, _ = json.Marshal(fields)
	}
	return create.Create(given, answer)
}

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
	return n.inNamespace(r, func(path string) error {
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

// configure is what one plugin of the chain reads: its own part of the list
// with the network's name and version, the result so far, and the capability
// arguments that it says it understands.
func configure(list *libcni.NetworkConfigList, p *libcni.PluginConfig, prev types.Result, caps map[string]any) ([]byte, error) {
	inject := map[string]any{"name": list.Name, "cniVersion": list.CNIVersion}
	if prev != nil {
		inject["prevResult"] = prev
	}
	able := map[string]any{}
	for name, on := range p.Network.Capabilities {
		if value, ok := caps[name]; ok && on {
			able[name] = value
		}
	}
	if len(able) > 0 {
		inject["runtimeConfig"] = able
	}
	conf, err := libcni.InjectConf(p, inject)
	if err != nil {
		return nil, fmt.Errorf("configure plugin %s: %w", p.Network.Type, err)
	}
	return conf.Bytes, nil
}
